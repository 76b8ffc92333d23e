"""The fused cross-entropy of mixed examples with dense labels, against loops over positions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from reference import hull as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor

from mixplug.functional import hull_labels
from mixplug.functional.hull_labels import hull_label_cross_entropy


def drawn(dtype: torch.dtype, m: int, b: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, 4, N), labels (B, N) and weights (M, B, N) with any sums."""
    logits = (torch.randn(b, 4, n, dtype=dtype) * 3).requires_grad_()
    return logits, torch.randint(4, (b, n)), torch.rand(m, b, n, dtype=dtype)


def looped(logits: Tensor, labels: Tensor, weights: Tensor, c: Tensor) -> Tensor:
    """Cross-entropy (eq. 5.14), position by position, with one-hot rows."""
    rows = torch.eye(4, dtype=torch.float64)
    return sum(
        naive.hull_cross_entropy(logits[..., j], rows[labels[:, j]], weights[..., j], c[:, j])
        for j in range(logits.shape[-1])
    )


@pytest.mark.parametrize("chunk", [1, 12, 1 << 17])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("m", "b", "n"), [(3, 3, 7), (2, 4, 1), (5, 1, 4)])
def test_equals_the_loop(
    m: int,
    b: int,
    n: int,
    weighted: bool,
    chunk: int,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With four classes, a chunk of 12 logits has 3 positions, which divides none of 7, 4 and 1."""
    monkeypatch.setattr(hull_labels, "_CHUNK", chunk)
    logits, labels, weights = drawn(dtype, m, b, n)
    c = torch.rand(m, n, dtype=dtype) if weighted else torch.full((m, n), 1 / (m * n)).to(dtype)
    loss = hull_label_cross_entropy(logits, labels, weights, c if weighted else None)
    assert_same_gradients(loss, looped(logits, labels, weights, c), [("logits", logits)])


def test_one_hot_weights_give_the_cross_entropy_of_maps(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 5, 2, 4, dtype=dtype, requires_grad=True)
    labels = torch.randint(5, (3, 2, 4))
    order = torch.eye(3)[[2, 0, 1]][..., None].expand(3, 3, 8)
    loss = hull_label_cross_entropy(logits.flatten(2), labels.flatten(1), order)
    assert_same_gradients(loss, F.cross_entropy(logits, labels), [("logits", logits)])


def test_by_hand() -> None:
    """Logits (0, log 3) of class 1 and (0, 0) of class 0, half of each.

    Mixed logits are (0, log 3 / 2), so p = (1, √3) / (1 + √3), and the loss is the mean of
    -log p_0 and -log p_1.
    """
    logits = torch.tensor([[[0.0], [3.0]], [[0.0], [1.0]]]).clamp(min=1).log()
    loss = hull_label_cross_entropy(logits, torch.tensor([[1], [0]]), torch.full((1, 2, 1), 0.5))
    assert_near(loss, torch.tensor(0.7303995, dtype=torch.float64))


def test_half_logits_and_autocast_give_float32() -> None:
    logits, labels, weights = drawn(torch.float32, 2, 3, 4)
    half = logits.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = hull_label_cross_entropy(half, labels, weights)
    assert loss.dtype == torch.float32
    assert_near(loss, hull_label_cross_entropy(half.float(), labels, weights))


def test_arguments_that_do_not_match_raise() -> None:
    logits, labels, weights = drawn(torch.float32, 2, 3, 4)
    text = (
        r"needs logits \(B, K, N\), labels \(B, N\), weights \(M, B, N\), got \(3, 4, 4\), "
        r"\(3, 3\), \(2, 3, 4\)\."
    )
    with pytest.raises(ValueError, match=text):
        hull_label_cross_entropy(logits, labels[:, :3], weights)
    with pytest.raises(ValueError, match=r"needs coefficient of shape \(2, 4\), got \(2, 3\)\."):
        hull_label_cross_entropy(logits, labels, weights, torch.ones(2, 3))
    with pytest.raises(
        ValueError, match=r"needs integer class indices as labels, got torch\.float32\."
    ):
        hull_label_cross_entropy(logits, labels.float(), weights)


def test_second_derivatives_are_refused() -> None:
    logits, labels, weights = drawn(torch.float32, 2, 3, 4)
    loss = hull_label_cross_entropy(logits, labels, weights)
    with pytest.raises(RuntimeError, match="differentiated only once"):
        torch.autograd.grad(loss, logits, create_graph=True)
