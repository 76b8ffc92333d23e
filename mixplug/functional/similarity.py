"""Similarities to mixed embeddings by closed form, and the negatives of largest similarity."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-12  # of a squared norm: opposite embeddings mixed evenly have none


def mixed_similarity(
    to_first: Tensor,
    to_second: Tensor,
    first_square: Tensor,
    second_square: Tensor,
    between: Tensor,
    lam: Tensor | float,
    normalize: bool = True,
) -> Tensor:
    r"""Similarity of anchors to mixed embeddings, from inner products alone.

    With :math:`v = \lambda x + (1 - \lambda) x'`, and divided by its norm if ``normalize``,

    .. math::
        s(a, v) = \frac{\lambda \langle a, x \rangle + (1 - \lambda) \langle a, x' \rangle}
        {\sqrt{\lambda^2 |x|^2 + (1 - \lambda)^2 |x'|^2 + 2 \lambda (1 - \lambda)
        \langle x, x' \rangle}}

    Args:
        to_first: ⟨a, x⟩; all arguments have shapes that broadcast.
        to_second: ⟨a, x'⟩.
        first_square: |x|².
        second_square: |x'|².
        between: ⟨x, x'⟩.
        lam: λ, the weight of x.
        normalize: whether the mixed embedding is ℓ2-normalized again.
    """
    other = 1 - lam
    s = lam * to_first + other * to_second
    if not normalize:
        return s
    square = (lam * lam) * first_square + (other * other) * second_square
    square = square + (2 * lam * other) * between
    return s * square.clamp_min(_SMALLEST).rsqrt()


def nearest_negatives(s: Tensor, negative: Tensor, k: int, fewer: bool = False) -> Tensor:
    """Indices (A, k) of the negatives of largest similarity, hardest first.

    Args:
        s: similarities (A, P).
        negative: which of them are negatives, (A, P) bool.
        k: how many.
        fewer: whether an anchor may have fewer. Its row then ends in points that are no negatives,
            and rows are no longer than the most that an anchor has, but have one column at least.

    Raises:
        ValueError: some anchor has fewer than k negatives, and may not.
    """
    counts = negative.sum(-1)
    fewest = int(counts.min()) if len(negative) else 0
    if fewer and k >= 1:
        k = min(k, max(1, int(counts.max()))) if len(negative) else 1
    elif not 1 <= k <= fewest:
        raise ValueError(
            f"k={k} hardest negatives are wanted, but an anchor of this batch has only {fewest}: "
            f"use a smaller k (Metrix has hardest=k), or larger batches with more classes."
        )
    lowest = torch.finfo(s.dtype).min
    return s.detach().masked_fill(~negative, lowest).topk(k, -1).indices
