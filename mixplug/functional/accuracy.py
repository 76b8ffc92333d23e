"""Top-k accuracy of a classifier, per example."""

from __future__ import annotations

from torch import Tensor

from mixplug.numbers import card_number


def top_k_correct(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the true class of each example is among the k classes with the largest logits.

    Args:
        logits: (N, K).
        labels: class indices, (N,).
        k: k >= 1. If k > K, every example is correct.

    Returns:
        (N,) bool.

    Raises:
        ValueError: k < 1, or shapes do not match.
    """
    if k < 1 or logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"top_k_correct needs k >= 1, logits (N, K) and labels (N,), got {k}, "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    best = logits.topk(min(k, logits.shape[1])).indices
    return (best == labels[:, None]).any(1)


@card_number(
    "top1",
    part="clean",
    source="logits",
    label="top-1 accuracy",
    unit="%",
    higher_is_better=True,
)
def top1_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """:func:`top_k_correct` with k = 1."""
    return top_k_correct(logits, labels, 1)


@card_number(
    "top5",
    part="clean",
    source="logits",
    label="top-5 accuracy",
    unit="%",
    higher_is_better=True,
)
def top5_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """:func:`top_k_correct` with k = 5."""
    return top_k_correct(logits, labels, 5)
