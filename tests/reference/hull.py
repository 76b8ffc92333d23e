"""MultiMix (eqs. 5.6 to 5.8) by loops over mixed examples k, examples i and classes."""

from __future__ import annotations

import torch
from reference.targets import cross_entropy
from torch import Tensor


def combine(rows: Tensor, weights: Tensor) -> Tensor:
    """Mixed rows (eqs. 5.6 and 5.7): sum_i λ_ki row_i. rows (B, ...), weights (M, B)."""
    mixed = []
    for k in range(len(weights)):
        total = torch.zeros_like(rows[0])
        for i in range(len(rows)):
            total = total + float(weights[k, i]) * rows[i]
        mixed.append(total)
    return torch.stack(mixed)


def hull_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor, coefficient: Tensor | None = None
) -> Tensor:
    """sum_k c_k H(mixed target k, softmax of mixed logits k); c_k = 1/M if not given."""
    mixed_logits, mixed_target = combine(logits, weights), combine(target, weights)
    total = torch.zeros((), dtype=logits.dtype)
    for k in range(len(weights)):
        c = 1 / len(weights) if coefficient is None else float(coefficient[k])
        total = total + c * cross_entropy(mixed_logits[k], mixed_target[k])
    return total
