"""Similarities of anchors to mixed embeddings of their pairs, some anchors at a time."""

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

_LEAST_ELEMENTS = 1 << 12  # of mixed similarities at a time, below which a call costs more
_LEAST_ELEMENTS_DEVICE = 1 << 24  # on an accelerator, where launches cost more than memory

Similarities = Callable[[slice], Tensor]
T = TypeVar("T")


def similarities(
    relation: Relation, pairs: MixingPairs, lam: Tensor | float, renormalize: bool = True
) -> Similarities:
    """A function from some anchors to their similarities (A, F, S) to mixed embeddings.

    They come from inner products of anchors and points, so no mixed embedding is ever made.

    Args:
        relation: anchors and points.
        pairs: of points, M(a).
        lam: λ, a number or (A, F, S).
        renormalize: whether mixed embeddings are ℓ2-normalized.
    """
    points = relation.points
    to_points, square = inner(relation.anchors, points), points.square().sum(1)
    if pairs.outside:  # the first is the anchor itself, so ⟨a, x⟩ = |a|² and ⟨x, x'⟩ = ⟨a, x'⟩
        anchor_square = relation.anchors.square().sum(1)[:, None, None]

        def of(anchors: slice) -> Tensor:
            some = pairs.of(anchors)
            to_second = _picked(to_points[anchors], some.second)
            own = anchor_square[anchors]
            weight = lam[anchors] if isinstance(lam, Tensor) else lam
            return mixed_similarity(
                own, to_second, own, square[some.second], to_second, weight, renormalize
            )

        return of

    if points is relation.anchors:
        between, row = to_points, pairs.first
    else:
        rows, row = torch.unique(pairs.first, return_inverse=True)
        between = inner(points[rows], points)

    def of_points(anchors: slice) -> Tensor:
        some, near = pairs.of(anchors), to_points[anchors]
        return mixed_similarity(
            _picked(near, some.first),
            _picked(near, some.second),
            square[some.first],
            square[some.second],
            between[row[anchors], some.second],
            lam[anchors] if isinstance(lam, Tensor) else lam,
            renormalize,
        )

    return of_points


def _picked(rows: Tensor, index: Tensor) -> Tensor:
    """Of every row (A, P) the columns of an index (A, ., .)."""
    return rows.gather(1, index.flatten(1)).view(index.shape)


def anchors_at_a_time(relation: Relation, per_anchor: int) -> int:
    """How many anchors' similarities take half the memory that those to clean points do.

    On an accelerator they take 64 MiB, since a call for each few would take longer.

    Args:
        relation: anchors and points.
        per_anchor: how many similarities an anchor has.
    """
    least = _LEAST_ELEMENTS if relation.anchors.device.type == "cpu" else _LEAST_ELEMENTS_DEVICE
    budget = max(least, len(relation.anchors) * len(relation.points) // 2)
    return max(1, budget // max(1, per_anchor))


def in_chunks(share: Callable[[slice], Share], count: int, size: int) -> Share:
    """The sum of shares of ``size`` anchors each."""
    slices = [(slice(start, start + size),) for start in range(0, count, size)]
    return functools.reduce(operator.add, each(share, slices))


def each(function: Callable[..., T], pieces: Sequence[tuple[Any, ...]]) -> list[T]:
    """``function(*piece)`` of every piece, run again in the backward pass if there are several."""
    if len(pieces) == 1:
        return [function(*pieces[0])]
    return [checkpoint(function, *piece, use_reentrant=False) for piece in pieces]
