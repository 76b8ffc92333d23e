"""Targets, smoothing and the soft cross-entropy against loops over terms and classes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from reference import targets as naive
from reference.compare import assert_near, assert_same_gradients
from torch.testing import assert_close

from mixplug.functional import smooth, soft_cross_entropy, soft_targets


@pytest.mark.parametrize("integer", [torch.int64, torch.int32, torch.uint8])
def test_indices_become_rows(integer: torch.dtype, dtype: torch.dtype) -> None:
    rows = soft_targets(torch.tensor([2, 0, 1], dtype=integer), 4, dtype)
    assert rows.dtype == dtype
    assert torch.equal(rows.double(), naive.one_hot([2, 0, 1], 4))


def test_indices_of_any_shape() -> None:
    rows = soft_targets(torch.tensor([[2, 0], [1, 3]]), 4)
    assert torch.equal(rows[1].double(), naive.one_hot([1, 3], 4))


def test_rows_are_returned_unchanged() -> None:
    rows = torch.tensor([[0.3, 0.9, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float16)
    result = soft_targets(rows, 3)
    assert result.dtype == torch.float32
    assert torch.equal(result, rows.float())


@pytest.mark.parametrize(
    ("labels", "wrong"), [([0, 4], 4), ([-1, 0], -1), ([-1, 7], 7), ([255, 0], 255)]
)
def test_an_index_outside_of_the_classes_raises(labels: list[int], wrong: int) -> None:
    message = rf"must be in 0 to 3 for a classifier with 4 classes, got {wrong}\."
    with pytest.raises(ValueError, match=message):
        soft_targets(torch.tensor(labels), 4)


def test_rows_of_a_wrong_width_raise() -> None:
    message = r"one column for each of the 4 classes, got shape \(2, 3\) in torch\.float32\."
    with pytest.raises(ValueError, match=message):
        soft_targets(torch.rand(2, 3), 4)
    with pytest.raises(
        ValueError, match=r"in torch\.float32\. Class indices need an integer dtype\."
    ):
        soft_targets(torch.tensor([0.0, 1.0, 2.0]), 4)


def test_smoothing_equals_the_loop(dtype: torch.dtype) -> None:
    target = torch.rand(3, 5, dtype=dtype)
    result = smooth(target, 0.1)
    for i in range(3):
        assert_near(result[i], naive.smooth(target[i], 0.1))
    assert torch.equal(smooth(target, 0.0), target)


def test_smoothing_commutes_with_mixing(dtype: torch.dtype) -> None:
    target, weights = torch.rand(3, 5, dtype=dtype), torch.rand(7, 3, dtype=dtype).softmax(-1)
    assert_close(smooth(weights @ target, 0.2), weights @ smooth(target, 0.2))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5])
def test_smoothing_outside_of_the_interval(smoothing: float) -> None:
    message = rf"Label smoothing must be in \[0, 1\), got {smoothing}\."
    with pytest.raises(ValueError, match=message):
        smooth(torch.rand(2, 3), smoothing)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("terms", [1, 5])
def test_soft_cross_entropy_equals_the_loop(terms: int, weighted: bool, dtype: torch.dtype) -> None:
    logits = torch.randn(terms, 4, dtype=dtype, requires_grad=True)
    target = torch.rand(terms, 4, dtype=dtype)  # rows need not sum to 1
    weight = torch.rand(terms, dtype=dtype) if weighted else None
    expected = naive.mean_cross_entropy(
        list(logits), list(target), weight.tolist() if weighted else None
    )
    loss = soft_cross_entropy(logits, target, weight)
    assert_same_gradients(loss, expected, [("logits", logits)])


def test_soft_cross_entropy_of_indices_equals_torch(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(5, 4, dtype=dtype), torch.tensor([3, 0, 1, 1, 2])
    loss = soft_cross_entropy(logits, soft_targets(labels, 4, dtype))
    assert_close(loss, F.cross_entropy(logits, labels))


def test_terms_may_have_any_leading_shape(dtype: torch.dtype) -> None:
    logits, target = torch.randn(2, 3, 4, dtype=dtype), torch.rand(2, 3, 4, dtype=dtype)
    weight = torch.rand(2, 3, dtype=dtype)
    flat = soft_cross_entropy(logits.view(6, 4), target.view(6, 4), weight.view(6))
    assert_close(soft_cross_entropy(logits, target, weight), flat)


def test_weights_of_zero_give_a_loss_of_zero() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = soft_cross_entropy(logits, torch.rand(3, 4), torch.zeros(3))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(loss.detach(), torch.zeros(()))
    assert torch.equal(gradient, torch.zeros(3, 4))


def test_half_logits_are_summed_in_float32() -> None:
    logits, target = torch.randn(5, 4).bfloat16(), torch.rand(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = soft_cross_entropy(logits, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, soft_cross_entropy(logits.float(), target))


def test_soft_cross_entropy_errors() -> None:
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(2, 4\)\."):
        soft_cross_entropy(torch.rand(2, 3), torch.rand(2, 4))
    with pytest.raises(ValueError, match=r"needs weight of shape \(2,\), got \(3,\)"):
        soft_cross_entropy(torch.rand(2, 3), torch.rand(2, 3), torch.rand(3))
