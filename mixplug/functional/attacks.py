"""White-box attacks: images near to given ones that a classifier gets wrong.

Letters: B images, C channels, H W pixels, K classes. Images are in pixel space, [0, 1]: the model
normalizes by itself. ε and steps are in the same unit, so 8/255 is eight of 256 gray levels.

All attacks are untargeted, in the L∞ ball, and climb the cross-entropy of the true class. Its
gradient is taken in another form: with m the log-sum-exp of the other logits less the true one,

    cross-entropy = log(1 + e^m),   gradient = e^m / (1 + e^m) * gradient of m

for every image, and only signs are used. So the gradient of m has the same sign; unlike that of the
cross-entropy it does not round to 0 where a network is sure, which would pass for robustness.
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
    r"""Fast gradient sign method [0]: one step of length ε in every pixel.

        x' = clip(x + ε sign(∇_x L(model(x), y)), 0, 1)

    Pixels whose gradient is 0 stay. Neither parameters nor ``x`` get a gradient. The model runs in
    the mode and under the autocast in which it is; with BatchNorm or dropout call ``eval`` first.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), K >= 2.
        x: (B, C, H, W), float32 or float64; may come from ``no_grad`` or ``inference_mode``.
        y: true classes, (B,) integers.
        eps: ε >= 0.

    Returns:
        x', like ``x``.

    Raises:
        ValueError: ``x`` is not in [0, 1] or not float32 or float64, labels or logits that do not
            fit, ε < 0, or no gradient reaches the images.

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
    r"""Projected gradient descent [0]: steps of equal length, each cut back to the ball.

        x_0 = x,   x_{t+1} = clip(x_t + s sign(∇ L(model(x_t), y)), max(x - ε, 0), min(x + ε, 1))

    What is said of parameters, modes and precision at :func:`fgsm` holds here.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), K >= 2.
        x: (B, C, H, W), float32 or float64.
        y: true classes, (B,) integers.
        eps: ε >= 0.
        step: s >= 0.
        iters: number of steps, all of them taken.
        random_start: whether x_0 is uniform in the ball, cut back to [0, 1].
        generator: source of that start, on any device.

    Returns:
        The last iterate, like ``x``.

    Raises:
        ValueError: see :func:`fgsm`; also s < 0, iters < 1, or a random start without generator.

    - [0]: Towards Deep Learning Models Resistant to Adversarial Attacks, 2018,
      https://arxiv.org/abs/1706.06083
    """
    top = _check("pgd", x, y, eps)
    if not step >= 0 or iters < 1:
        raise ValueError(f"pgd needs step >= 0 and iters >= 1, got {step} and {iters}.")
    if random_start and generator is None:
        raise ValueError("pgd with random_start=True needs a generator: nothing is drawn globally.")
    with torch.inference_mode(False), torch.enable_grad():
        start = x.clone()
        if random_start and generator is not None:
            drawn = sampling.uniform(x.shape, generator).to(x)
            start = (start + eps * (2 * drawn - 1)).clamp(0, 1)
        return _climb(model, x.clone(), start, y.clone(), top, eps, step, iters)


def apgd(
    model: Model, x: Tensor, y: Tensor, eps: float = 4 / 255, iters: int = 10, seed: int = 0
) -> Tensor:
    """Auto-PGD on the cross-entropy [0], torchattacks' implementation of it.

    A random start, momentum, and a step that is halved where it stops to help. Images that are not
    fooled stay as they are, and so do those that the model gets wrong anyway. Global generators are
    left as they were. The loss is torchattacks' own, a plain cross-entropy.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), K >= 2.
        x: (B, C, H, W), float32 or float64.
        y: true classes, (B,) integers.
        eps: ε >= 0.
        iters: number of steps.
        seed: of the start.

    Returns:
        The attacked images, like ``x``.

    Raises:
        ValueError: see :func:`fgsm`; also iters < 1.
        ImportError: torchattacks is not installed.

    - [0]: Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
      Attacks, 2020, https://arxiv.org/abs/2003.01690
    """
    top = _check("apgd", x, y, eps)
    if iters < 1:
        raise ValueError(f"apgd needs iters >= 1, got {iters}.")
    theirs = optional("torchattacks", "attacks", "The attack APGD")
    drawn_on = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(drawn_on), torch.inference_mode(False), torch.enable_grad():
        x, y = x.clone(), y.clone().long()
        _gradient(model, x[:1], y[:1], top)  # torchattacks would not say what is wrong
        attack = theirs.APGD(_Unowned(model, x), eps=eps, steps=iters, seed=seed, loss="ce")
        found: Tensor = attack(x, y)
        return found.detach()


class _Unowned(nn.Module):
    """A model as torchattacks wants it: a module with a device, whose mode it may change."""

    def __init__(self, model: Model, x: Tensor) -> None:
        super().__init__()
        self.call = (model,)  # not a submodule, so that it keeps its mode
        self.place = nn.Parameter(x.new_zeros(()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.call[0](x)


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
    """Steps from ``start`` within the ball around ``x``; ``top`` is the highest label."""
    x, at = x.detach(), start.detach()
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    for _ in range(iters):
        at = (at + step * _gradient(model, at, y, top).sign()).clamp(low, high)
    return at


def _gradient(model: Model, at: Tensor, y: Tensor, top: int) -> Tensor:
    """∇ m at some images, with the sign of the gradient of their cross-entropies."""
    at = at.detach().requires_grad_()
    logits = model(at)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != len(y):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"An attack needs a model with logits ({len(y)}, K), got {got}.")
    if logits.shape[1] <= max(top, 1):
        raise ValueError(
            f"An attack needs a model with K >= 2 classes and labels in [0, K), got "
            f"K={logits.shape[1]} and a label of {top}."
        )
    gradient = None
    if logits.requires_grad:
        with torch.autocast(at.device.type, enabled=False):
            exact, true = logits.to(exact_dtype(logits)), y.long()[:, None]
            others = exact.scatter(1, true, float("-inf")).logsumexp(1)
            margins = others - exact.gather(1, true)[:, 0]
        # of the images alone: parameters keep the gradients that they have
        (gradient,) = torch.autograd.grad(margins.sum(), at, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "An attack needs the gradient of the images, but none reaches them: the model is "
            "quantized, exported without gradients, or detaches its input."
        )
    return gradient


def _check(who: str, x: Tensor, y: Tensor, eps: float) -> int:
    """The highest label: it is compared with the classes at each step, without a sync."""
    if x.dtype not in (torch.float32, torch.float64) or x.dim() != 4:
        raise ValueError(
            f"{who} needs images (B, C, H, W) in float32 or float64, got {tuple(x.shape)} in "
            f"{x.dtype}."
        )
    if y.shape != x.shape[:1] or y.is_floating_point():
        raise ValueError(
            f"{who} needs integer labels ({len(x)},), got {tuple(y.shape)} in {y.dtype}."
        )
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError(
            f"{who} needs images in [0, 1], before normalization, got values from "
            f"{float(x.min()):g} to {float(x.max()):g}."
        )
    if not eps >= 0:
        raise ValueError(f"{who} needs eps >= 0, got {eps}.")
    if len(y) and int(y.min()) < 0:
        raise ValueError(f"{who} needs labels in [0, K), got {int(y.min())}.")
    return int(y.max()) if len(y) else 0
