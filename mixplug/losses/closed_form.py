"""Similarities of anchors to mixed embeddings in closed form, in chunks of anchors."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mixplug.functional.pairwise import Share
from mixplug.functional.similarity import mixed_similarity
from mixplug.losses.mixing_pairs import MixingPairs
from mixplug.losses.relation import Relation, inner

_LEAST_ELEMENTS = 1 << 12  # mixed similarities per chunk: with fewer, call overhead dominates
_LEAST_ELEMENTS_DEVICE = 1 << 24  # on an accelerator, where launches cost more than memory

Similarities = Callable[[slice], Tensor]
T = TypeVar("T")


def similarities(
    relation: Relation, pairs: MixingPairs, lam: Tensor | float, renormalize: bool = True
) -> Similarities:
    """Function from a slice of anchors to their similarities (a, F, S) to mixed embeddings.

    The similarities are computed from inner products of anchors and points, so no mixed embedding
    is built.

    Args:
        relation: anchors and points.
        pairs: the pairs M(a) to mix.
        lam: λ, the weight of the first of each pair: a number, or (A, F, S).
        renormalize: whether mixed embeddings are ℓ2-normalized.
    """
    points = relation.points
    to_points, square = inner(relation.anchors, points), points.square().sum(1)
    if pairs.outside:  # the first is the anchor itself, so ⟨a, x⟩ = |a|² and ⟨x, x'⟩ = ⟨a, x'⟩
        anchor_square = relation.anchors.square().sum(1)[:, None, None]

        def with_anchors(anchors: slice) -> Tensor:
            chunk = pairs.select(anchors)
            to_second = _gather(to_points[anchors], chunk.second)
            norm = anchor_square[anchors]
            weight = lam[anchors] if isinstance(lam, Tensor) else lam
            return mixed_similarity(
                norm, to_second, norm, square[chunk.second], to_second, weight, renormalize
            )

        return with_anchors

    if points is relation.anchors:
        between, row = to_points, pairs.first
    else:
        rows, row = torch.unique(pairs.first, return_inverse=True)
        between = inner(points[rows], points)

    def with_points(anchors: slice) -> Tensor:
        chunk, s = pairs.select(anchors), to_points[anchors]
        return mixed_similarity(
            _gather(s, chunk.first),
            _gather(s, chunk.second),
            square[chunk.first],
            square[chunk.second],
            between[row[anchors], chunk.second],
            lam[anchors] if isinstance(lam, Tensor) else lam,
            renormalize,
        )

    return with_points


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """Gather columns of each row (A, P) by an index (A, ., .)."""
    return rows.gather(1, index.flatten(1)).view(index.shape)


def anchors_per_chunk(relation: Relation, per_anchor: int) -> int:
    """Number of anchors whose mixed similarities take half the memory of all clean similarities.

    On an accelerator, a chunk takes at least 64 MiB, because many small launches would be slower.

    Args:
        relation: anchors and points.
        per_anchor: number of mixed similarities of one anchor.
    """
    least = _LEAST_ELEMENTS if relation.anchors.device.type == "cpu" else _LEAST_ELEMENTS_DEVICE
    budget = max(least, len(relation.anchors) * len(relation.points) // 2)
    return max(1, budget // max(1, per_anchor))


def sum_over_chunks(share: Callable[[slice], Share], count: int, size: int) -> Share:
    """Sum of ``share(anchors)`` over chunks of ``size`` of the ``count`` anchors."""
    slices = [(slice(start, start + size),) for start in range(0, count, size)]
    return functools.reduce(operator.add, map_checkpointed(share, slices))


def map_checkpointed(function: Callable[..., T], chunks: Sequence[tuple[Any, ...]]) -> list[T]:
    """``function(*chunk)`` for every chunk. Several chunks are recomputed in the backward pass."""
    if len(chunks) == 1:
        return [function(*chunks[0])]
    return [checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks]
