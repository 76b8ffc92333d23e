"""Similarities to mixed embeddings in closed form, and the hardest negatives."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-12  # lower bound of a squared norm: opposite embeddings can mix to zero


def mixed_similarity(
    to_first: Tensor,
    to_second: Tensor,
    first_square: Tensor,
    second_square: Tensor,
    between: Tensor,
    lam: Tensor | float,
    normalize: bool = True,
) -> Tensor:
    r"""Similarity of anchors a to mixed embeddings v, computed from inner products only.

    With :math:`v = \lambda x + (1 - \lambda) x'`, ℓ2-normalized if ``normalize`` is set,

    .. math::
        s(a, v) = \frac{\lambda \langle a, x \rangle + (1 - \lambda) \langle a, x' \rangle}
        {\sqrt{\lambda^2 |x|^2 + (1 - \lambda)^2 |x'|^2 + 2 \lambda (1 - \lambda)
        \langle x, x' \rangle}}

    Args:
        to_first: ⟨a, x⟩. The shapes of all arguments must broadcast.
        to_second: ⟨a, x'⟩.
        first_square: |x|².
        second_square: |x'|².
        between: ⟨x, x'⟩.
        lam: λ, the weight of x.
        normalize: whether the mixed embedding is ℓ2-normalized. Without, the denominator is 1.

    Returns:
        s(a, v), in the broadcast shape.
    """
    other = 1 - lam
    s = lam * to_first + other * to_second
    if not normalize:
        return s
    square = (lam * lam) * first_square + (other * other) * second_square
    square = square + (2 * lam * other) * between
    return s * square.clamp_min(_SMALLEST).rsqrt()


def nearest_negatives(s: Tensor, negative: Tensor, k: int, fewer: bool = False) -> Tensor:
    """Indices of the k hardest negatives, those of largest similarity, hardest first.

    Args:
        s: similarities of A anchors to P points, (A, P).
        negative: whether a point is a negative of the anchor, (A, P) bool.
        k: number of negatives per anchor.
        fewer: whether anchors with fewer than k negatives are allowed. Their rows are filled up
            with points that are not negatives.

    Returns:
        (A, k) int64. With ``fewer``, the number of columns is at most the largest number of
        negatives of any anchor, and at least 1.

    Raises:
        ValueError: k < 1, or an anchor has fewer than k negatives and ``fewer`` is False.
    """
    counts = negative.sum(-1)
    fewest = int(counts.min()) if len(negative) else 0
    if fewer and k >= 1:
        k = min(k, max(1, int(counts.max()))) if len(negative) else 1
    elif not 1 <= k <= fewest:
        raise ValueError(
            f"Mining the k={k} hardest negatives needs at least {k} negatives per anchor, but an "
            f"anchor of this batch has only {fewest}. Use a smaller k (Metrix: hardest=k), or "
            f"larger batches with more classes."
        )
    lowest = torch.finfo(s.dtype).min
    return s.detach().masked_fill(~negative, lowest).topk(k, -1).indices
