"""Cross-entropy (eqs. 5.1 and 5.14), label smoothing and one-hot rows, term by term."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def one_hot(labels: list[int], classes: int) -> Tensor:
    """Rows over classes, float64."""
    return torch.tensor([[float(k == c) for k in range(classes)] for c in labels]).double()


def smooth(row: Tensor, smoothing: float) -> Tensor:
    """(1 - s) y_k + s / K, class by class."""
    return torch.stack([(1 - smoothing) * value + smoothing / len(row) for value in row])


def log_probability(logits: Tensor, k: int) -> Tensor:
    """log p_k of one row of logits, where p is the softmax."""
    top = float(logits.detach().max())
    total = sum(torch.exp(value - top) for value in logits)
    return logits[k] - top - torch.log(total)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """- sum_k y_k log p_k of one row (K,)."""
    return -sum(target[k] * log_probability(logits, k) for k in range(len(target)))


def mean_cross_entropy(
    logits: list[Tensor], target: list[Tensor], s: list[float] | None = None
) -> Tensor:
    """Mean (eq. 5.1), or mean weighted by s (eq. 5.14)."""
    s = [1.0] * len(logits) if s is None else s
    terms = [w * cross_entropy(z, y) for z, y, w in zip(logits, target, s, strict=True)]
    return sum(terms) / math.fsum(s)
