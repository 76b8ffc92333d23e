"""Terms of a loss: their reduction, weights, extras, and the fused form on hull points."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from reference import hull as naive
from reference import targets
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from mixplug.criterion import cross_entropy
from mixplug.functional import hull
from mixplug.mixed import HullMixed, Mixed, clean


def distance(logits: Tensor, target: Tensor) -> Tensor:
    """A loss per term that is no cross-entropy."""
    return (logits - target).square().sum(-1)


def hull_batch(dtype: torch.dtype, *lead: int) -> tuple[Tensor, Tensor, Tensor]:
    logits = torch.randn(*lead, 3, 4, dtype=dtype, requires_grad=True)
    target = torch.rand(3, 4, dtype=dtype).softmax(-1)
    return logits, target, torch.rand(*lead, 7, 3, dtype=dtype).softmax(-1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(5, 4), (3, 2, 4), (1, 4)])
def test_mixed_loss_equals_the_loop(
    shape: tuple[int, ...], weighted: bool, dtype: torch.dtype
) -> None:
    logits = torch.randn(shape, dtype=dtype, requires_grad=True)
    target = torch.rand(shape, dtype=dtype)
    weight = torch.rand(shape[:-1], dtype=dtype) if weighted else None
    rows = list(zip(logits.view(-1, 4), target.view(-1, 4), strict=True))
    c = weight.flatten().tolist() if weighted else [1 / len(rows)] * len(rows)
    expected = sum(w * targets.cross_entropy(z, y) for w, (z, y) in zip(c, rows, strict=True))
    loss = Mixed(logits, target, weight).loss()
    assert_same_gradients(loss, expected, [("logits", logits)])


def test_extra_terms_are_added_once(dtype: torch.dtype) -> None:
    logits, target = torch.randn(5, 4, dtype=dtype), torch.rand(5, 4, dtype=dtype)
    plain = Mixed(logits, target).loss()
    a, b = torch.tensor(3.0, dtype=dtype, requires_grad=True), torch.tensor(-1.25, dtype=dtype)
    loss = Mixed(logits, target, extra={"a": a, "b": b}).loss(cross_entropy(scale=1.0))
    assert_close(loss.detach(), plain + 1.75)
    assert torch.autograd.grad(loss, a)[0] == 1


def test_the_scale_is_the_criterions_and_not_the_extras(dtype: torch.dtype) -> None:
    logits, target, weights = hull_batch(dtype)
    extra = {"a": torch.tensor(3.0, dtype=dtype)}
    expected = 2 * naive.hull_cross_entropy(logits, target, weights) + 3
    assert_near(HullMixed(logits, target, weights, extra=extra).loss(cross_entropy(0, 2)), expected)
    mixed = Mixed(weights @ logits, weights @ target, extra=extra)
    assert_near(mixed.loss(cross_entropy(0, 2)), expected)


def test_half_logits_give_a_float32_loss() -> None:
    logits, target = torch.randn(5, 4).bfloat16(), torch.rand(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = Mixed(logits, target).loss()
    assert loss.dtype == torch.float32
    assert_close(loss, F.cross_entropy(logits.float(), target))


def test_terms_that_are_weighted_need_a_loss_per_term() -> None:
    logits, target = torch.randn(5, 4), torch.rand(5, 4)
    message = (
        r"The criterion must return one value per term, \(5,\), got shape \(\)\. These terms are "
        r"weighted, so a scalar is not enough\."
    )
    with pytest.raises(ValueError, match=message):
        Mixed(logits, target, torch.rand(5)).loss(lambda z, y: distance(z, y).mean())


def test_a_criterion_of_another_shape_is_refused() -> None:
    logits, target = torch.randn(5, 4), torch.rand(5, 4)
    message = r"must return one value per term, \(5,\), got shape \(5, 4\)\.$"
    with pytest.raises(ValueError, match=message):
        Mixed(logits, target).loss(lambda z, y: (z - y).square())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_hull_loss_equals_the_loop(
    lead: tuple[int, ...], weighted: bool, smoothing: float, dtype: torch.dtype
) -> None:
    """Label smoothing is applied to the clean targets, which is the same."""
    logits, target, weights = hull_batch(dtype, *lead)
    weight = torch.rand(*lead, 7, dtype=dtype) if weighted else None
    smoothed = torch.stack([targets.smooth(row, smoothing) for row in target])
    if lead:
        c = weight if weighted else torch.full((2, 7), 1 / 14, dtype=dtype)
        expected = sum(
            naive.hull_cross_entropy(logits[j], smoothed, weights[j], c[j]) for j in range(2)
        )
    else:
        expected = naive.hull_cross_entropy(logits, smoothed, weights, weight)
    mixed = HullMixed(logits, target, weights, weight)
    loss = mixed.loss(nn.CrossEntropyLoss(label_smoothing=smoothing))
    assert_same_gradients(loss, expected, [("logits", logits)])
    plain = Mixed(mixed.logits, mixed.target, weight).loss(cross_entropy(smoothing))
    assert_same_gradients(plain, expected, [("logits", logits)])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_another_criterion_sees_the_mixed_logits_and_targets(
    lead: tuple[int, ...], weighted: bool, dtype: torch.dtype
) -> None:
    logits, target, weights = hull_batch(dtype, *lead)
    weight = torch.rand(*lead, 7, dtype=dtype) if weighted else None
    items = [(logits, weights)] if not lead else list(zip(logits, weights, strict=True))
    c = weight.flatten().tolist() if weighted else [1 / (7 * len(items))] * 7 * len(items)
    terms = [
        distance(z, y)
        for item, lam in items
        for z, y in zip(naive.combine(item, lam), naive.combine(target, lam), strict=True)
    ]
    expected = sum(w * term for w, term in zip(c, terms, strict=True))
    loss = HullMixed(logits, target, weights, weight).loss(distance)
    assert_same_gradients(loss, expected, [("logits", logits)])


def test_the_fused_form_stands_in_for_the_cross_entropy_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 300 x 100 mixed logits nothing of that size is made, unless a criterion asks for it."""
    monkeypatch.setattr(hull, "_CHUNK", 1000)
    logits, target = torch.randn(3, 100, requires_grad=True), torch.eye(100)[:3]
    mixed = HullMixed(logits, target, torch.rand(300, 3).softmax(-1))
    sizes: list[int] = []

    class Sizes(TorchFunctionMode):
        def __torch_function__(
            self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
        ) -> object:
            out = func(*args, **(kwargs or {}))
            sizes.append(out.numel() if isinstance(out, Tensor) else 0)
            return out

    for criterion in (None, nn.CrossEntropyLoss(label_smoothing=0.1)):
        sizes.clear()
        with Sizes():
            mixed.loss(criterion).backward()
        assert max(sizes) <= 1000
    sizes.clear()
    with Sizes():
        mixed.loss(distance)
    assert max(sizes) == 30_000


def test_the_clean_batch(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 4, dtype=dtype)
    mixed = clean(logits, torch.tensor([1, 3, 0]))
    assert mixed.output is logits and mixed.weight is None
    assert torch.equal(mixed.target.double(), targets.one_hot([1, 3, 0], 4))
    assert_close(mixed.loss(), F.cross_entropy(logits, torch.tensor([1, 3, 0])))


@pytest.mark.parametrize("criterion", [None, distance])
def test_the_loss_on_hull_points_does_not_feel_autocast(criterion: object) -> None:
    """Losses run in float32 whatever autocast says: also the mixing of logits and targets."""
    mixed = HullMixed(*hull_batch(torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = mixed.loss(criterion)
    assert inside.dtype == torch.float32
    assert_close(inside, mixed.loss(criterion))
