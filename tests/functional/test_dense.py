"""Dense MultiMix against loops over positions, mixed examples and examples."""

from __future__ import annotations

import pytest
import torch
from reference import dense as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional import (
    attention_map,
    dense_multimix,
    dense_weights,
    multimix,
    soft_cross_entropy,
)


def simplex(dtype: torch.dtype, m: int, b: int, n: int) -> Tensor:
    return torch.rand(m, b, n, dtype=dtype).softmax(1)


def soft_rows(dtype: torch.dtype, b: int, k: int) -> Tensor:
    return torch.rand(b, k, dtype=dtype).softmax(-1)


@pytest.mark.parametrize("normalize", ["l1", "softmax"])
@pytest.mark.parametrize("query", ["gap", "cam"])
@pytest.mark.parametrize("b", [1, 3])
def test_attention_equals_the_loop(query: str, normalize: str, b: int, dtype: torch.dtype) -> None:
    z, weight = torch.randn(b, 4, 6, dtype=dtype), torch.randn(5, 4, dtype=dtype)
    y = soft_rows(dtype, b, 5)
    arguments = {"weight": weight, "target": y} if query == "cam" else {}
    a = attention_map(z, query, normalize, **arguments)
    assert a.dtype == dtype
    assert_near(a, naive.attention_maps(z, query, normalize, weight, y))


def test_attention_by_hand(dtype: torch.dtype) -> None:
    """Two channels, three positions: columns (1, 0), (2, 3), (-3, 3)."""
    z = torch.tensor([[[1.0, 2.0, -3.0], [0.0, 3.0, 3.0]]], dtype=dtype)
    # u = (0, 2), scores 0, 6, 6.
    assert_close(attention_map(z), torch.tensor([[0.0, 0.5, 0.5]], dtype=dtype))
    # u = 2 (1, 0) + 1 (0, 1) = (2, 1): scores 2, 7, -3.
    weight = torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, 1.0]], dtype=dtype)
    target = torch.tensor([[2.0, 0.0, 1.0]], dtype=dtype)
    expected = torch.tensor([[2 / 9, 7 / 9, 0.0]], dtype=dtype)
    assert_close(attention_map(z, "cam", "l1", weight, target), expected)
    conv = weight[:, :, None, None]  # the weight of a 1x1 convolution
    assert_close(attention_map(z, "cam", "l1", conv, target), expected)


def test_normalize_uniform_is_constant(dtype: torch.dtype) -> None:
    a = attention_map(torch.randn(2, 4, 5, dtype=dtype), normalize="uniform")
    assert_close(a, torch.full((2, 5), 0.2, dtype=dtype))


def test_a_row_without_a_positive_score_is_zero(dtype: torch.dtype) -> None:
    """With u = -z all scores are negative; features of zero give scores of zero."""
    z = torch.stack([torch.ones(2, 3), torch.zeros(2, 3), torch.eye(3)[:2]]).to(dtype)
    weight, target = torch.tensor([[-1.0, -1.0], [1.0, 0.0]], dtype=dtype), torch.eye(2).to(dtype)
    a = attention_map(z, "cam", "l1", weight, target[[0, 0, 1]])
    assert_close(a, torch.tensor([[0.0] * 3, [0.0] * 3, [1.0, 0.0, 0.0]], dtype=dtype))


def test_attention_has_no_gradient() -> None:
    z = torch.randn(2, 4, 5, requires_grad=True)
    weight = torch.randn(3, 4, requires_grad=True)
    y = torch.eye(3)[:2].requires_grad_()
    for a in (attention_map(z), attention_map(z, "cam", "softmax", weight, y)):
        assert not a.requires_grad


def test_attention_of_half_features_is_in_float32() -> None:
    z = torch.randn(2, 16, 9).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a = attention_map(z, normalize="softmax")
    assert a.dtype == torch.float32
    assert torch.equal(a, attention_map(z.float(), normalize="softmax"))


def test_weights_by_hand(dtype: torch.dtype) -> None:
    weights = torch.tensor([[[0.5], [0.5]], [[0.25], [0.75]]], dtype=dtype)
    m_hat, s = dense_weights(weights, torch.tensor([[0.6], [0.2]], dtype=dtype))
    assert_close(s, torch.tensor([[0.4], [0.3]], dtype=dtype))
    assert_close(m_hat, torch.tensor([[[0.75], [0.25]], [[0.5], [0.5]]], dtype=dtype))


@pytest.mark.parametrize(("m", "b", "n"), [(7, 3, 4), (2, 5, 6), (4, 1, 2), (1, 1, 1)])
def test_dense_multimix_equals_the_loop(m: int, b: int, n: int, dtype: torch.dtype) -> None:
    z = torch.randn(b, 3, n, dtype=dtype, requires_grad=True)
    y, weights = soft_rows(dtype, b, 5), simplex(dtype, m, b, n)
    a = torch.rand(b, n, dtype=dtype)
    ours, theirs = dense_multimix(z, y, weights, a), naive.dense_multimix(z, y, weights, a)
    for name, mine, other in zip(("z", "y", "s"), ours, theirs, strict=True):
        assert_near(mine, other, name)
    direction = torch.randn(m, 3, n, dtype=dtype)
    assert_same_gradients((ours[0] * direction).sum(), (theirs[0] * direction).sum(), [("z", z)])


def test_the_weighted_loss_equals_the_loop(dtype: torch.dtype) -> None:
    """Eqs. 5.9 to 5.14 together, with the classifier as a 1x1 convolution."""
    z = torch.randn(3, 4, 5, dtype=dtype, requires_grad=True)
    w = torch.randn(6, 4, dtype=dtype, requires_grad=True)
    y, weights = soft_rows(dtype, 3, 6), simplex(dtype, 7, 3, 5)
    z_mixed, y_mixed, s = dense_multimix(z, y, weights, attention_map(z))
    logits = torch.einsum("kd,mdn->mnk", w, z_mixed)
    ours = sum(soft_cross_entropy(logits[:, j], y_mixed[..., j], weight=s[:, j]) for j in range(5))
    a = naive.attention_maps(z, "gap")
    features, targets, mass = naive.dense_multimix(z, y, weights, a)
    other = torch.stack([torch.stack([w @ f[:, j] for j in range(5)], 1) for f in features])
    theirs = naive.dense_loss(other, targets, mass, "position_mean")
    assert_same_gradients(ours / 5, theirs, [("z", z), ("w", w)])


def test_positions_without_attention_keep_their_weights(dtype: torch.dtype) -> None:
    """M̂ = Λ and s = 0 at these positions; no value or gradient is NaN."""
    z = torch.randn(3, 4, 2, dtype=dtype, requires_grad=True)
    y, weights = soft_rows(dtype, 3, 5), simplex(dtype, 6, 3, 2)
    a = torch.rand(3, 2, dtype=dtype)
    a[:, 1] = 0
    m_hat, s = dense_weights(weights, a)
    assert torch.equal(m_hat[..., 1], weights[..., 1])
    assert torch.equal(s[:, 1], torch.zeros(6, dtype=dtype))
    z_mixed, y_mixed, s = dense_multimix(z, y, weights, a)
    expected = naive.dense_multimix(z, y, weights, a)
    assert_near(z_mixed, expected[0])
    assert_near(y_mixed, expected[1])
    (gradient,) = torch.autograd.grad((z_mixed * z_mixed).sum(), z, retain_graph=True)
    assert bool(gradient.isfinite().all())
    loss = soft_cross_entropy(z_mixed.mT, z_mixed.mT.softmax(-1), weight=torch.zeros_like(s))
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.equal(loss.detach(), torch.zeros((), dtype=dtype)) and not bool(gradient.any())


def test_weights_of_examples_without_attention_are_zero(dtype: torch.dtype) -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=dtype)
    m_hat, _ = dense_weights(simplex(dtype, 4, 3, 2), a)
    assert not bool(m_hat[:, 2].any()) and not bool(m_hat[:, 0, 1].any())
    assert_close(m_hat[:, 1, 1], torch.ones(4, dtype=dtype))
    assert_close(m_hat.sum(1), torch.ones(4, 2, dtype=dtype))


def test_uniform_attention_and_equal_weights_reduce_to_multimix(dtype: torch.dtype) -> None:
    z, y = torch.randn(3, 4, 5, dtype=dtype), soft_rows(dtype, 3, 6)
    weights = torch.rand(7, 3, dtype=dtype).softmax(-1)
    a = attention_map(z, normalize="uniform")
    z_mixed, y_mixed, s = dense_multimix(z, y, weights[..., None].expand(7, 3, 5), a)
    assert_close(s, torch.full((7, 5), 0.2, dtype=dtype))
    for j in range(5):
        expected_z, expected_y = multimix(z[..., j], y, weights)
        assert_close(z_mixed[..., j], expected_z)
        assert_close(y_mixed[..., j], expected_y)


def test_arguments_are_not_modified() -> None:
    given = [torch.randn(3, 4, 5), torch.rand(3, 6), torch.rand(7, 3, 5), torch.rand(3, 5)]
    before = [t.clone() for t in given]
    dense_multimix(*given), attention_map(given[0]), attention_map(given[0], normalize="softmax")
    assert all(torch.equal(t, old) for t, old in zip(given, before, strict=True))


def test_attention_errors() -> None:
    z = torch.rand(2, 4, 5)
    message = (
        r"needs query in \('gap', 'cam'\) and normalize in \('l1', 'softmax', 'uniform'\), got "
    )
    with pytest.raises(ValueError, match=message + "'max' and 'l1'"):
        attention_map(z, "max")
    with pytest.raises(ValueError, match=message + "'gap' and 'l2'"):
        attention_map(z, "gap", "l2")
    with pytest.raises(ValueError, match=r"attention_map needs z \(B, D, N\), got \(2, 4\)\."):
        attention_map(torch.rand(2, 4))
    message = r"needs weight \(K, D\) and target \(B, K\) for query 'cam'\."
    with pytest.raises(ValueError, match=message):
        attention_map(z, "cam", target=torch.eye(2))
    with pytest.raises(ValueError, match=message):
        attention_map(z, "cam", weight=torch.rand(2, 4))


@pytest.mark.parametrize("wrong", range(1, 4))
def test_shapes_that_do_not_match_raise(wrong: int) -> None:
    given = [torch.rand(3, 4, 5), torch.rand(3, 6), torch.rand(7, 3, 5), torch.rand(3, 5)]
    given[wrong] = [torch.rand(2, 6), torch.rand(7, 3, 4), torch.rand(5, 3)][wrong - 1]
    with pytest.raises(
        ValueError,
        match=r"dense_multimix needs z \(B, D, N\), y \(B, K\), weights "
        r"\(M, B, N\), attention \(B, N\), got \(3, 4, 5\)",
    ):
        dense_multimix(*given)
