"""White-box adversarial attacks: FGSM, PGD and APGD.

Letters: B images, C channels, H W pixels, K classes. Images are in pixel space, [0, 1]; the model
does its own normalization. ε and step sizes are in the same unit: 8/255 is 8 of 255 gray levels.

All attacks are untargeted, stay in the L∞ ball of radius ε, and increase the cross-entropy of the
true class. FGSM and PGD use only the sign of its gradient, so they replace it by the gradient of a
margin m, the log-sum-exp of the other logits minus the true logit. For every image,

    cross-entropy = log(1 + e^m),   gradient = e^m / (1 + e^m) * gradient of m,

so both gradients have the same sign. For a confident network, however, the gradient of the
cross-entropy rounds to 0, and the network would look robust; the gradient of m does not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.functional.precision import exact_dtype
from mixplug.optional import optional

Model = Callable[[Tensor], Tensor]


def fgsm(model: Model, x: Tensor, y: Tensor, eps: float = 8 / 255) -> Tensor:
    r"""Fast gradient sign method (FGSM) [0]: one step of length ε in every pixel.

        x' = clip(x + ε sign(∇_x L(model(x), y)), 0, 1)

    Pixels with a gradient of 0 do not change. Parameters and ``x`` accumulate no gradient. The mode
    of the model and autocast are not changed: call ``model.eval()`` first if the model has
    BatchNorm or dropout.

    Args:
        model: maps images (B, C, H, W) in [0, 1] to logits (B, K), K >= 2.
        x: images, (B, C, H, W), float32 or float64. Tensors made under ``no_grad`` or
            ``inference_mode`` are allowed.
        y: true classes, (B,) integers.
        eps: ε >= 0.

    Returns:
        Attacked images x', same shape and dtype as ``x``.

    Raises:
        ValueError: ``x`` is outside [0, 1] or neither float32 nor float64; labels or logits have
            the wrong shape; a label is not in [0, K); ε < 0; or the images receive no gradient.

    - [0]: Explaining and Harnessing Adversarial Examples, 2015, https://arxiv.org/abs/1412.6572
    """
    top = _check("fgsm", x, y, eps)
    with torch.inference_mode(False), torch.enable_grad():
        return _climb(model, x.clone(), x.clone(), y.clone(), top, eps, eps, 1)


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float = 4 / 255,
    step: float = 2 / 255,
    iters: int = 10,
    random_start: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Projected gradient descent (PGD) [0]: steps of equal length, each projected onto the ball.

        x_0 = x,   x_{t+1} = clip(x_t + s sign(∇ L(model(x_t), y)), max(x - ε, 0), min(x + ε, 1))

    Gradients, model mode and autocast are treated as in :func:`fgsm`.

    Args:
        model: maps images (B, C, H, W) in [0, 1] to logits (B, K), K >= 2.
        x: images, (B, C, H, W), float32 or float64.
        y: true classes, (B,) integers.
        eps: ε >= 0.
        step: step size s >= 0.
        iters: number of steps; there is no early stop.
        random_start: whether x_0 is drawn uniformly from the ball and clipped to [0, 1].
        generator: random generator of that start, on any device.

    Returns:
        The last iterate, same shape and dtype as ``x``.

    Raises:
        ValueError: as in :func:`fgsm`; also s < 0, iters < 1, or a random start without generator.

    - [0]: Towards Deep Learning Models Resistant to Adversarial Attacks, 2018,
      https://arxiv.org/abs/1706.06083
    """
    top = _check("pgd", x, y, eps)
    if not step >= 0 or iters < 1:
        raise ValueError(f"pgd needs step >= 0 and iters >= 1, got {step} and {iters}.")
    if random_start and generator is None:
        raise ValueError(
            "pgd with random_start=True needs a torch.Generator, got None. The global generator is "
            "never used."
        )
    with torch.inference_mode(False), torch.enable_grad():
        start = x.clone()
        if random_start and generator is not None:
            drawn = sampling.uniform(x.shape, generator).to(x)
            start = (start + eps * (2 * drawn - 1)).clamp(0, 1)
        return _climb(model, x.clone(), start, y.clone(), top, eps, step, iters)


def apgd(
    model: Model, x: Tensor, y: Tensor, eps: float = 4 / 255, iters: int = 10, seed: int = 0
) -> Tensor:
    """Auto-PGD (APGD) on the cross-entropy [0], as implemented by torchattacks.

    APGD starts at random, uses momentum, and halves the step size when progress stops. It returns
    an image unchanged if the attack fails or if the model misclassifies the clean image. The state
    of the global random generators is restored. The loss is the plain cross-entropy of
    torchattacks.

    Args:
        model: maps images (B, C, H, W) in [0, 1] to logits (B, K), K >= 2.
        x: images, (B, C, H, W), float32 or float64.
        y: true classes, (B,) integers.
        eps: ε >= 0.
        iters: number of steps.
        seed: random seed of the start.

    Returns:
        Attacked images, same shape and dtype as ``x``.

    Raises:
        ValueError: as in :func:`fgsm`; also iters < 1.
        ImportError: torchattacks is not installed.

    - [0]: Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
      Attacks, 2020, https://arxiv.org/abs/2003.01690
    """
    top = _check("apgd", x, y, eps)
    if iters < 1:
        raise ValueError(f"apgd needs iters >= 1, got {iters}.")
    torchattacks = optional("torchattacks", "attacks", "The attack APGD")
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        x, y = x.clone(), y.clone().long()
        _gradient(model, x[:1], y[:1], top)  # raises our errors: torchattacks' explain nothing
        wrapped = _ModelForTorchattacks(model, x)
        attack = torchattacks.APGD(wrapped, eps=eps, steps=iters, seed=seed, loss="ce")
        attacked: Tensor = attack(x, y)
        return attacked.detach()


class _ModelForTorchattacks(nn.Module):
    """Wrap a model as torchattacks expects it: a module on a device, whose mode may be changed."""

    def __init__(self, model: Model, x: Tensor) -> None:
        super().__init__()
        self.model = (model,)  # in a tuple it is no submodule, so its mode does not change
        self.device_marker = nn.Parameter(x.new_zeros(()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.model[0](x)


def _climb(
    model: Model,
    x: Tensor,
    start: Tensor,
    y: Tensor,
    top: int,
    eps: float,
    step: float,
    iters: int,
) -> Tensor:
    """Sign-gradient steps from ``start`` in the ball around ``x``; ``top`` is the largest label."""
    x, attacked = x.detach(), start.detach()
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    for _ in range(iters):
        sign = _gradient(model, attacked, y, top).sign()
        attacked = (attacked + step * sign).clamp(low, high)
    return attacked


def _gradient(model: Model, images: Tensor, y: Tensor, top: int) -> Tensor:
    """∇ m at the images. It has the sign of the gradient of the cross-entropy."""
    images = images.detach().requires_grad_()
    logits = model(images)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != len(y):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"An attack needs a model that returns logits ({len(y)}, K), got {got}.")
    if logits.shape[1] <= max(top, 1):
        raise ValueError(
            f"An attack needs a model with K >= 2 classes and labels in [0, K), got "
            f"K={logits.shape[1]} and label {top}."
        )
    gradient = None
    if logits.requires_grad:
        with torch.autocast(images.device.type, enabled=False):
            exact, true = logits.to(exact_dtype(logits)), y.long()[:, None]
            others = exact.scatter(1, true, float("-inf")).logsumexp(1)
            margins = others - exact.gather(1, true)[:, 0]
        # with respect to the images only: the gradients of the parameters do not change
        (gradient,) = torch.autograd.grad(margins.sum(), images, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "An attack needs the gradient with respect to the images, but the model gives none: it "
            "is quantized, exported without gradients, or detaches its input."
        )
    return gradient


def _check(caller: str, x: Tensor, y: Tensor, eps: float) -> int:
    """Check the inputs and return the largest label, so that later checks need no device sync."""
    if x.dtype not in (torch.float32, torch.float64) or x.dim() != 4:
        raise ValueError(
            f"{caller} needs images (B, C, H, W) in float32 or float64, got {tuple(x.shape)} in "
            f"{x.dtype}."
        )
    if y.shape != x.shape[:1] or y.is_floating_point():
        raise ValueError(
            f"{caller} needs integer labels ({len(x)},), got {tuple(y.shape)} in {y.dtype}."
        )
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError(
            f"{caller} needs images in [0, 1], before normalization, got values from "
            f"{float(x.min()):g} to {float(x.max()):g}."
        )
    if not eps >= 0:
        raise ValueError(f"{caller} needs eps >= 0, got {eps}.")
    if len(y) and int(y.min()) < 0:
        raise ValueError(f"{caller} needs labels in [0, K), got {int(y.min())}.")
    return int(y.max()) if len(y) else 0
