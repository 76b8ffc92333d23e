"""MultiMix and its fused cross-entropy against loops over mixed examples and classes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from reference import hull as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from mixplug.functional import hull, hull_cross_entropy, multimix, soft_cross_entropy


def simplex(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.rand(shape, dtype=dtype).softmax(-1)


def multi_hot(batch: int, classes: int) -> Tensor:
    """Rows with any sum, some of them zero."""
    rows = torch.tensor([[1.0, 1.0, 0.0, 0.3], [0.0, 0.0, 0.0, 0.0], [0.5, 0.2, 0.0, 0.0]])
    return rows.repeat(2, 2)[:batch, :classes]


class Largest(TorchFunctionMode):
    """Record the size of the largest tensor that any operation returns."""

    numel = 0

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


@pytest.mark.parametrize(("m", "b"), [(7, 3), (2, 5), (4, 1), (1, 1)])
def test_multimix_equals_the_loop(m: int, b: int, dtype: torch.dtype) -> None:
    z = torch.randn(b, 4, dtype=dtype, requires_grad=True)
    y, weights = simplex(dtype, b, 3), simplex(dtype, m, b)
    z_mixed, y_mixed = multimix(z, y, weights)
    assert_near(z_mixed, naive.combine(z, weights))
    assert_near(y_mixed, naive.combine(y, weights))
    direction = torch.randn(m, 4, dtype=dtype)
    assert_same_gradients(
        (z_mixed * direction).sum(), (naive.combine(z, weights) * direction).sum(), [("z", z)]
    )


def test_one_hot_weights_return_the_inputs(dtype: torch.dtype) -> None:
    z, y = torch.randn(4, 5, dtype=dtype), torch.randn(4, 3, dtype=dtype)
    order = [2, 0, 3, 1, 2]
    z_mixed, y_mixed = multimix(z, y, torch.eye(4, dtype=dtype)[order])
    assert torch.equal(z_mixed, z[order]) and torch.equal(y_mixed, y[order])


def test_equal_weights_return_the_mean(dtype: torch.dtype) -> None:
    z, y = torch.randn(4, 5, dtype=dtype), torch.randn(4, 3, dtype=dtype)
    z_mixed, y_mixed = multimix(z, y, torch.full((2, 4), 0.25, dtype=dtype))
    assert_close(z_mixed, z.mean(0).expand(2, 5))
    assert_close(y_mixed, y.mean(0).expand(2, 3))


def test_weights_follow_the_dtype_of_what_they_mix() -> None:
    z, y = torch.randn(3, 4, dtype=torch.float64), torch.rand(3, 2)
    z_mixed, y_mixed = multimix(z, y, torch.rand(5, 3))
    assert z_mixed.dtype == torch.float64 and y_mixed.dtype == torch.float32


def test_multimix_errors() -> None:
    message = r"the same B in all arguments, got 3 in z, 2 in y and 4 in weights\."
    with pytest.raises(ValueError, match=message):
        multimix(torch.rand(3, 4), torch.rand(2, 5), torch.rand(6, 4))
    with pytest.raises(
        ValueError, match=r"z \(B, D\), y \(B, K\), weights \(M, B\), got \(3, 4, 1\)"
    ):
        multimix(torch.rand(3, 4, 1), torch.rand(3, 5), torch.rand(6, 3))


@pytest.mark.parametrize("chunk", [1, 12, 1 << 19])
@pytest.mark.parametrize("targets", ["one-hot", "soft", "multi-hot"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("m", "b"), [(7, 3), (2, 5), (4, 1)])
def test_fused_equals_the_loop(
    m: int,
    b: int,
    weighted: bool,
    targets: str,
    chunk: int,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With four classes, a chunk of 12 logits has 3 rows, which divides none of 7, 4 and 2."""
    monkeypatch.setattr(hull, "_CHUNK", chunk)
    logits = (torch.randn(b, 4, dtype=dtype) * 3).requires_grad_()
    target = {
        "one-hot": torch.eye(4).repeat(2, 1)[:b],
        "soft": simplex(dtype, b, 4),
        "multi-hot": multi_hot(b, 4),
    }[targets].to(dtype)
    weights = simplex(dtype, m, b)
    coefficient = torch.rand(m, dtype=dtype) if weighted else None
    assert_same_gradients(
        hull_cross_entropy(logits, target, weights, coefficient),
        naive.hull_cross_entropy(logits, target, weights, coefficient),
        [("logits", logits)],
    )


def test_fused_equals_the_plain_path_through_a_linear_head(dtype: torch.dtype) -> None:
    """Value and gradients in features, W and b equal those of eq. 5.8 with mixed embeddings."""
    z = torch.randn(5, 6, dtype=dtype, requires_grad=True)
    w = torch.randn(4, 6, dtype=dtype, requires_grad=True)
    bias = torch.randn(4, dtype=dtype, requires_grad=True)
    y, weights = simplex(dtype, 5, 4), simplex(dtype, 9, 5)
    z_mixed, y_mixed = multimix(z, y, weights)
    fused = hull_cross_entropy(z @ w.T + bias, y, weights)
    plain = soft_cross_entropy(z_mixed @ w.T + bias, y_mixed)
    assert_same_gradients(fused, plain, [("z", z), ("W", w), ("b", bias)])


@pytest.mark.parametrize("weighted", [False, True])
def test_leading_dimensions_are_positions(weighted: bool, dtype: torch.dtype) -> None:
    logits = torch.randn(2, 3, 5, 4, dtype=dtype, requires_grad=True)
    target, weights = simplex(dtype, 5, 4), simplex(dtype, 2, 3, 6, 5)
    c = torch.rand(2, 3, 6, dtype=dtype) if weighted else torch.full((2, 3, 6), 1 / 36).to(dtype)
    expected = sum(
        naive.hull_cross_entropy(logits[i, j], target, weights[i, j], c[i, j])
        for i in range(2)
        for j in range(3)
    )
    loss = hull_cross_entropy(logits, target, weights, c if weighted else None)
    assert_same_gradients(loss, expected, [("logits", logits)])


def test_views_of_any_memory_order(dtype: torch.dtype) -> None:
    """Dense MultiMix passes transposed and permuted views."""
    logits = torch.randn(5, 3, 4, dtype=dtype, requires_grad=True)
    target, weights = simplex(dtype, 5, 4), simplex(dtype, 3, 6, 5).permute(1, 2, 0)
    c = torch.rand(6, 3, dtype=dtype)
    expected = sum(
        naive.hull_cross_entropy(logits[:, j], target, weights[..., j], c[:, j]) for j in range(3)
    )
    loss = hull_cross_entropy(logits.transpose(0, 1), target, weights.permute(2, 0, 1), c.T)
    assert_same_gradients(loss, expected, [("logits", logits)])


def test_one_hot_weights_give_the_loss_of_the_clean_batch(dtype: torch.dtype) -> None:
    logits, target = torch.randn(4, 3, dtype=dtype), torch.tensor([2, 0, 1, 1])
    rows = torch.nn.functional.one_hot(target, 3).to(dtype)
    clean = torch.nn.functional.cross_entropy(logits, target)
    assert_close(hull_cross_entropy(logits, rows, torch.eye(4, dtype=dtype)), clean)


def test_equal_logits_give_the_logarithm_of_the_classes(dtype: torch.dtype) -> None:
    loss = hull_cross_entropy(
        torch.full((3, 8), 5.0, dtype=dtype), simplex(dtype, 3, 8), simplex(dtype, 4, 3)
    )
    assert_close(loss, torch.tensor(8.0, dtype=dtype).log())


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[900.0, -900.0], [-400.0, 500.0]], requires_grad=True)
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    target = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    # First row: 1800. Second: mixed logits (-75, 150), so no loss.
    loss = hull_cross_entropy(logits, target, weights)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_close(loss, torch.tensor(900.0))
    assert_close(gradient, torch.tensor([[0.5, -0.5], [0.0, 0.0]]))


def test_the_gradient_is_scaled_by_the_upstream_gradient() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = hull_cross_entropy(logits, torch.eye(4)[:3], simplex(torch.float32, 5, 3))
    (once,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (scaled,) = torch.autograd.grad(-3.5 * loss, logits, retain_graph=True)
    (again,) = torch.autograd.grad(loss, logits)
    assert_close(scaled, -3.5 * once)
    assert torch.equal(again, once)


def test_a_second_derivative_raises() -> None:
    """The gradient of W depends on z directly and via the softmax. The latter part is unknown."""
    z, w = torch.randn(3, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    loss = hull_cross_entropy(z @ w.T, torch.eye(4)[:3], simplex(torch.float32, 5, 3))
    with pytest.raises(RuntimeError, match=r"once|twice"):
        (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), z)


def test_targets_weights_and_coefficients_get_no_gradient() -> None:
    logits, target = torch.randn(3, 4, requires_grad=True), torch.eye(4)[:3].requires_grad_()
    weights = simplex(torch.float32, 5, 3).requires_grad_()
    coefficient = torch.rand(5).requires_grad_()
    hull_cross_entropy(logits, target, weights, coefficient).backward()
    assert logits.grad is not None
    assert target.grad is weights.grad is coefficient.grad is None


def test_arguments_are_not_modified() -> None:
    given = [torch.randn(3, 4), torch.rand(3, 4), torch.rand(5, 3), torch.rand(5)]
    before = [t.clone() for t in given]
    hull_cross_entropy(given[0].requires_grad_(), *given[1:]).backward()
    multimix(*given[:3])
    assert all(torch.equal(t, old) for t, old in zip(given, before, strict=True))


def test_no_tensor_of_the_size_of_the_mixed_logits_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    m, b, k, chunk = 300, 3, 100, 1000
    monkeypatch.setattr(hull, "_CHUNK", chunk)
    logits, target = torch.randn(b, k, requires_grad=True), torch.eye(k)[:b]
    weights = simplex(torch.float32, m, b)
    with Largest() as plain:
        soft_cross_entropy(weights @ logits, weights @ target).backward()
    with Largest() as fused:
        hull_cross_entropy(logits, target, weights).backward()
    assert plain.numel == m * k  # the recorder sees it where it is
    assert fused.numel <= max(m * b, b * k, chunk)


def test_half_logits_are_summed_in_float32() -> None:
    logits = torch.randn(4, 6).bfloat16().requires_grad_()
    target, weights = simplex(torch.float32, 4, 6), simplex(torch.float32, 50, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = hull_cross_entropy(logits, target, weights)
    assert loss.dtype == torch.float32
    assert_close(loss, hull_cross_entropy(logits.float(), target, weights))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.dtype == torch.bfloat16


def test_fused_errors() -> None:
    logits, target, weights = torch.rand(3, 4), torch.rand(3, 4), torch.rand(5, 3)
    message = r"needs logits \(\.\.\., B, K\), target \(B, K\), weights \(\.\.\., M, B\), got"
    with pytest.raises(ValueError, match=message + r" \(3, 4\), \(2, 4\), \(5, 3\)\."):
        hull_cross_entropy(logits, target[:2], weights)
    with pytest.raises(ValueError, match=message):
        hull_cross_entropy(logits, target, weights[:, :2])
    message = r"same leading dimensions in logits and weights, got \(3, 4\) and \(2, 5, 3\)\."
    with pytest.raises(ValueError, match=message):
        hull_cross_entropy(logits, target, weights.expand(2, 5, 3))
    with pytest.raises(ValueError, match=r"needs coefficient of shape \(5,\), got \(3,\)\."):
        hull_cross_entropy(logits, target, weights, torch.rand(3))
