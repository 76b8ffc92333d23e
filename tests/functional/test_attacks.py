"""Attacks against loops over pixels, closed forms, and torchattacks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchattacks
from reference import attacks as naive
from torch import Tensor, nn
from torch.testing import assert_close

from mixplug.data.digits import digits
from mixplug.functional import apgd, fgsm, pgd

EPS = 8 / 255
Attack = Callable[..., Tensor]
ATTACKS = pytest.mark.parametrize("attack", [fgsm, pgd, apgd])


def network(dtype: torch.dtype = torch.float32, classes: int = 5) -> nn.Module:
    """A random nonlinear CNN for images of 3 x 6 x 6."""
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(6 * 16, classes)).eval().to(dtype)


def batch(dtype: torch.dtype = torch.float32, count: int = 7) -> tuple[Tensor, Tensor]:
    """Images with pixels at both ends of the range, and labels."""
    return (torch.rand(count, 3, 6, 6, dtype=dtype) * 1.2 - 0.1).clamp(0, 1), torch.randint(
        5, (count,)
    )


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A network trained on digits, and 100 test images."""
    torch.manual_seed(0)
    x, y = digits("train", 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    x, y = digits("test", 8)
    return model.eval(), x[:100], y[:100]


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize(("step", "iters"), [(0.1, 1), (0.04, 5), (0.3, 2)])
def test_attacks_equal_the_loop_over_pixels(step: float, iters: int) -> None:
    weight, out = torch.randn(4, 6).double() * 3, torch.randn(3, 4).double() * 3
    x, y = torch.rand(3, 1, 2, 3).double(), torch.tensor([0, 1, 2])

    def model(images: Tensor) -> Tensor:
        return torch.tanh(images.flatten(1) @ weight.T) @ out.T

    def logits(pixels: list[float]) -> list[float]:
        return model(torch.tensor([[[pixels]]]).double())[0].tolist()

    found = pgd(model, x, y, 0.1, step, iters)
    for image, label, attacked in zip(x, y.tolist(), found, strict=True):
        expected = naive.climb(logits, image.flatten().tolist(), label, 0.1, step, iters)
        assert_close(attacked.flatten(), torch.tensor(expected).double())
    if iters == 1:
        assert torch.equal(fgsm(model, x, y, 0.1), found)


def test_defaults_are_those_of_the_thesis() -> None:
    """A linear model pushes every pixel one way: 8/255 at once, and 2 · 2/255 until 4/255."""
    x, y = torch.full((1, 1, 1, 2), 0.5).double(), torch.tensor([0])

    def model(images: Tensor) -> Tensor:
        first, second = images.flatten(1).unbind(1)
        return torch.stack([first - second, second - first], 1)

    assert_close(fgsm(model, x, y), x + torch.tensor([-8 / 255, 8 / 255]).double())
    assert_close(pgd(model, x, y), x + torch.tensor([-4 / 255, 4 / 255]).double())
    two = pgd(model, x, y, eps=1, step=2 / 255, iters=1)
    assert_close(two, x + torch.tensor([-2 / 255, 2 / 255]).double())
    assert_close(pgd(model, x, y, eps=1), x + torch.tensor([-20 / 255, 20 / 255]).double())


@ATTACKS
def test_of_two_linear_classes_the_worst_case_is_known(attack: Attack, dtype: torch.dtype) -> None:
    """min over the ball of the margin (w_y - w_j) x is at x - ε sign(w_y - w_j)."""
    linear = nn.Linear(12, 2).to(dtype)
    x, y = torch.rand(5, 3, 2, 2, dtype=dtype) * 0.8 + 0.1, torch.tensor([0, 1, 0, 1, 0])
    with torch.no_grad():  # all are right as they are, else APGD would not move them
        linear.bias.zero_()
        y = linear(x.flatten(1)).argmax(1)
    toward = (linear.weight[y] - linear.weight[1 - y]).sign().view_as(x)
    found = attack(lambda images: linear(images.flatten(1)), x, y, EPS)
    if attack is apgd:  # it may stop where an image is wrong
        margin = (toward * (found - x)).flatten(1).sum(1)
        assert bool((margin <= 0).all()) and bool((found - x).abs().amax() <= EPS + 1e-6)
    else:
        assert_close(found, x - EPS * toward)
    assert found.dtype == dtype


def test_pixels_without_gradient_stay() -> None:
    x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])

    def model(images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 0, 0], images[:, 0, 0, 0] * 0], 1)

    for found in (fgsm(model, x, y), pgd(model, x, y)):
        moved = found != x
        assert moved[:, 0].tolist() == [[[True, False], [False, False]]] * 2


def test_a_confident_network_is_attacked_as_well() -> None:
    """The gradient of the cross-entropy underflows in float32; this must not look robust."""
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])

    def model(images: Tensor) -> Tensor:
        first, second = images.flatten(1).unbind(1)
        return 1e5 * torch.stack([0.01 + first - second, second - first], 1)

    assert_close(fgsm(model, x, y), x + torch.tensor([-EPS, EPS]))
    assert torch.equal(torchattacks.FGSM(_Module(model), EPS)(x, y), x)
    assert int(model(fgsm(model, x, y)).argmax()) == 1


class _Module(nn.Module):
    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.place = model, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


# ---------------------------------------------------------------- torchattacks


def test_fgsm_is_that_of_torchattacks(dtype: torch.dtype) -> None:
    model, (x, y) = network(dtype), batch(dtype)
    theirs = torchattacks.FGSM(model, EPS)(x, y)
    assert_close(fgsm(model, x, y), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("eps", "step", "iters"), [(4, 2, 10), (8, 1, 3), (1, 5, 4)])
def test_pgd_is_that_of_torchattacks(eps: int, step: int, iters: int, dtype: torch.dtype) -> None:
    model, (x, y) = network(dtype), batch(dtype)
    theirs = torchattacks.PGD(model, eps / 255, step / 255, iters, random_start=False)(x, y)
    found = pgd(model, x, y, eps / 255, step / 255, iters)
    assert_close(found, theirs, rtol=0, atol=1e-6)


def test_apgd_is_that_of_torchattacks_and_leaves_the_generator(dtype: torch.dtype) -> None:
    model, (x, _) = network(dtype), batch(dtype)
    y = model(x).argmax(1)
    state = torch.get_rng_state()
    found = apgd(model, x, y, EPS, iters=5, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    theirs = torchattacks.APGD(model, eps=EPS, steps=5, seed=4, loss="ce")(x, y)
    assert_close(found, theirs)
    assert not torch.equal(found, x) and found.dtype == dtype
    assert torch.equal(found, apgd(model, x, y, EPS, iters=5, seed=4))


# ---------------------------------------------------------------- properties


@ATTACKS
@pytest.mark.parametrize("eps", [0.0, 3 / 255, 0.4, 2.0])
def test_attacks_stay_in_the_ball_and_in_the_range(
    attack: Attack, eps: float, dtype: torch.dtype
) -> None:
    model, (x, _) = network(dtype), batch(dtype)
    y = model(x).argmax(1)
    found = attack(model, x, y, eps)
    assert float((found - x).abs().max()) <= eps + 1e-6
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert found.shape == x.shape and found.dtype == dtype
    assert not torch.equal(found, x) or eps == 0 or attack is apgd  # which moves what it fools


def test_a_random_start_is_in_the_ball_and_from_its_generator() -> None:
    model, (x, y) = network(), batch()
    starts = []
    for seed in (1, 1, 2):
        source = torch.Generator().manual_seed(seed)
        starts.append(pgd(model, x, y, EPS, 0.0, 1, random_start=True, generator=source))
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
    inner = (x > EPS) & (x < 1 - EPS)
    moved = ((starts[0] - x) / EPS)[inner]
    assert float(moved.abs().max()) <= 1 + 1e-5
    assert abs(float(moved.mean())) < 0.1 and float(moved.std()) == pytest.approx(3**-0.5, abs=0.05)
    assert float(starts[0].min()) == 0 and float(starts[0].max()) == 1


@ATTACKS
def test_no_attack_helps_a_trained_network(
    attack: Attack, trained: tuple[nn.Module, Tensor, Tensor]
) -> None:
    model, x, y = trained
    clean = accuracy(model, x, y)
    weak, strong = (accuracy(model, attack(model, x, y, eps), y) for eps in (4 / 255, 0.3))
    assert strong < 0.7 < weak <= clean


def test_more_steps_are_no_weaker(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = trained
    one = accuracy(model, fgsm(model, x, y, 0.1), y)
    many = accuracy(model, pgd(model, x, y, 0.1, 0.02, 20), y)
    assert many <= one < accuracy(model, x, y)


@ATTACKS
def test_nothing_else_changes(attack: Attack) -> None:
    model, (x, _) = network(), batch()
    y = model(x).argmax(1)
    F.cross_entropy(model(x), y).backward()
    before = [p.grad.clone() for p in model.parameters()]
    images, labels = x.clone(), y.clone()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model[4].train()  # an attack leaves modes to its caller
    found = attack(model, x, y, EPS)
    assert model[4].training and not model.training
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    assert torch.equal(x, images) and torch.equal(y, labels)
    assert x.grad is None and not x.requires_grad and not found.requires_grad
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@ATTACKS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_off(attack: Attack, mode: Callable) -> None:
    model, (x, _) = network(), batch()
    y = model(x).argmax(1)
    expected = attack(model, x, y, EPS)
    with mode():
        assert torch.equal(attack(model, x * 1, y * 1, EPS), expected)
        assert not torch.is_grad_enabled()


def test_images_that_require_a_gradient_receive_none() -> None:
    model, (x, y) = network(), batch()
    expected = pgd(model, x, y)
    x.requires_grad_()
    assert torch.equal(pgd(model, x, y), expected) and x.grad is None


def test_under_autocast_images_and_steps_keep_their_precision() -> None:
    model, (x, y) = network(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pgd(model, x, y)
    assert found.dtype == torch.float32
    gray = (found - x)[(x > 0.05) & (x < 0.95)] * 255 / 2
    assert_close(gray, gray.round(), rtol=0, atol=1e-3)  # changes are multiples of a step
    assert float(gray.abs().max()) == pytest.approx(2, abs=1e-4)


def test_an_empty_batch_stays_empty() -> None:
    x = torch.zeros(0, 3, 6, 6)
    assert fgsm(network(), x, torch.zeros(0, dtype=torch.long)).shape == x.shape


# ---------------------------------------------------------------- what is refused


@ATTACKS
def test_a_model_without_gradient_raises(attack: Attack) -> None:
    model, (x, y) = network(), batch()
    none = "the gradient with respect to the images, but the model gives none: it is quantized"
    with pytest.raises(ValueError, match=none):
        attack(lambda images: model(images.detach()), x, y)  # parameters have one
    with pytest.raises(ValueError, match=none):
        attack(torch.no_grad()(model.forward), x, y)
    with pytest.raises(ValueError, match=none):
        attack(lambda images: model((images * 255).byte().float()), x, y)


@ATTACKS
def test_wrong_inputs(attack: Attack) -> None:
    model, (x, y), name = network(), batch(), attack.__name__
    for images, text in (
        (x * 255, rf"{name} needs images in \[0, 1\], before normalization, got values from 0 to"),
        (x - 1, r"got values from -1 to 0\."),
        (x * float("nan"), "got values from nan to nan"),
        ((x * 255).byte(), r"float32 or float64, got \(7, 3, 6, 6\) in torch.uint8\."),
        (x.half(), r"in torch.float16\."),
        (x[0], r"images \(B, C, H, W\) .* got \(3, 6, 6\)"),
    ):
        with pytest.raises(ValueError, match=text):
            attack(model, images, y)
    for labels, text in (
        (y[:3], rf"{name} needs integer labels \(7,\), got \(3,\) in torch.int64\."),
        (y.float(), r"got \(7,\) in torch.float32\."),
        (y - 9, r"needs labels in \[0, K\), got -9\."),
        (y + 5, r"labels in \[0, K\), got K=5 and label \d\."),
    ):
        with pytest.raises(ValueError, match=text):
            attack(model, x, labels)
    with pytest.raises(ValueError, match=rf"{name} needs eps >= 0, got -0\.1\."):
        attack(model, x, y, -0.1)
    with pytest.raises(ValueError, match=rf"{name} needs eps >= 0, got nan\."):
        attack(model, x, y, float("nan"))


@ATTACKS
def test_models_without_logits(attack: Attack) -> None:
    x, y = batch()
    with pytest.raises(ValueError, match=r"returns logits \(\d, K\), got \(\d, 3, 6, 6\)\."):
        attack(lambda images: images, x, y)
    with pytest.raises(ValueError, match=r"returns logits \(\d, K\), got tuple\."):
        attack(lambda images: (images,), x, y)
    with pytest.raises(ValueError, match=r"K >= 2 classes .* got K=1 and label 0\."):
        attack(network(classes=1), x, y * 0)


def test_wrong_settings() -> None:
    model, (x, y) = network(), batch()
    with pytest.raises(ValueError, match=r"pgd needs step >= 0 and iters >= 1, got -1 and 10\."):
        pgd(model, x, y, step=-1)
    with pytest.raises(ValueError, match=r"pgd needs step >= 0 and iters >= 1, got 0\.1 and 0\."):
        pgd(model, x, y, step=0.1, iters=0)
    with pytest.raises(ValueError, match=r"random_start=True needs a torch\.Generator, got None"):
        pgd(model, x, y, random_start=True)
    with pytest.raises(ValueError, match=r"apgd needs iters >= 1, got 0\."):
        apgd(model, x, y, iters=0)


def test_without_torchattacks_only_apgd_is_missing() -> None:
    code = (
        "import sys, torch; sys.modules['torchattacks'] = None\n"
        "from mixplug.functional import apgd, fgsm\n"
        "x, y = torch.rand(1, 1, 1, 2), torch.tensor([0])\n"
        "fgsm(lambda images: images.flatten(1), x, y)\n"
        "try: apgd(lambda images: images.flatten(1), x, y)\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "The attack APGD needs torchattacks, which is not installed" in done.stdout
    assert "uv sync --inexact --extra attacks" in done.stdout
