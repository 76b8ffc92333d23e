"""M(a): which pairs of points are mixed for an anchor (section 4.4.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.functional.similarity import nearest_negatives
from mixplug.losses.relation import Relation, inner

# Operands of a pair, and their labels in relation to the anchor (4.5, 4.6).
PAIRS = {
    "pos-neg": ("positive", "negative"),
    "anc-neg": ("anchor", "negative"),
    "pos-pos": ("positive", "positive"),
    "neg-neg": ("negative", "negative"),
}
LABEL = {"anchor": 1.0, "positive": 1.0, "negative": 0.0}


@dataclass(frozen=True)
class MixingPairs:
    """Pairs of every anchor, as indices of points that broadcast to (A, F, S).

    The sets are the products of 4.4.2, in order and with the diagonal: U⁺² has also (p', p) and
    (p, p). An anchor that is not a point itself has the index P + its own.

    Attributes:
        first: (A, F, 1), or (A, 1, S) where pairs are no product.
        second: (A, 1, S).
        there: (A, F, S), False where an anchor has fewer than the others.
        first_label, second_label: y of the two operands.
        points: P, how many there are.
        outside: whether the first is an anchor that is not a point.
    """

    first: Tensor
    second: Tensor
    there: Tensor
    first_label: float
    second_label: float
    points: int
    outside: bool = False

    def weights(self, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Weights y of the positive term and 1 − y of the negative one (4.9), (A, F, S) each."""
        y = lam * self.first_label + (1 - lam) * self.second_label
        return self.there * y, self.there * (1 - y)

    def of(self, anchors: slice | Tensor) -> MixingPairs:
        """The pairs of some anchors."""
        first, second, there = self.first[anchors], self.second[anchors], self.there[anchors]
        return replace(self, first=first, second=second, there=there)

    def pick(self, lam: Tensor) -> Tensor:
        """λ of the pairs, (A, F, S), from one of all pairs indexed [anchor, first, second].

        Raises:
            ValueError: it lacks an anchor or a point.
        """
        anchors, points = len(self.there), self.points
        needed = (anchors, points + (anchors if self.outside else 0), points)
        if lam.dim() != 3 or any(n < least for n, least in zip(lam.shape, needed, strict=True)):
            raise ValueError(
                f"lam needs the shape {needed}, indexed [anchor, first, second], or one number, "
                f"got {tuple(lam.shape)}."
            )
        anchor = torch.arange(len(self.there), device=lam.device)[:, None, None]
        return lam[anchor, self.first.to(lam.device), self.second.to(lam.device)]

    def distinct(self) -> tuple[Tensor, Tensor, Tensor]:
        """The unordered pairs that occur: whichever anchors want them, they are mixed once.

        Returns:
            Indices (V,) of points, the lower ones and the others, and (A, F, S) which of them a
            pair is, 0 where there is no pair.
        """
        first, second = self.first.expand(self.there.shape), self.second.expand(self.there.shape)
        key = torch.minimum(first, second) * self.points + torch.maximum(first, second)
        keys, found = torch.unique(key[self.there], return_inverse=True)
        place = torch.zeros_like(key).masked_scatter_(self.there, found)
        return keys // self.points, keys % self.points, place


def mixing_pairs(
    relation: Relation, kind: str, hardest: int | None = None, fewer: bool = False
) -> MixingPairs:
    """All pairs of a kind.

    Args:
        relation: anchors and points.
        kind: a key of :data:`PAIRS`.
        hardest: k, of how many negatives nearest to the anchor; None is all.
        fewer: whether an anchor may have fewer than k negatives, which then are all taken.

    Raises:
        ValueError: an anchor has fewer than k negatives, and may not.
    """
    first_kind, second_kind = PAIRS[kind]
    first, first_there = _operand(relation, first_kind, hardest, fewer)
    second, second_there = _operand(relation, second_kind, hardest, fewer)
    there = first_there[:, :, None] & second_there[:, None, :]
    labels = LABEL[first_kind], LABEL[second_kind]
    outside = first_kind == "anchor" and not relation.itself
    points = len(relation.points)
    return MixingPairs(first[:, :, None], second[:, None, :], there, *labels, points, outside)


def thin(pairs: MixingPairs, source: torch.Generator) -> MixingPairs:
    """Keep one first operand, drawn uniformly, for each second: S pairs an anchor, not F·S."""
    count = pairs.there.any(2).sum(1)  # lists have what is there in front
    shape = pairs.second.shape
    drawn = sampling.uniform(shape, source).to(count.device)
    place = (drawn * count[:, None, None]).long().clamp_max(pairs.first.shape[1] - 1)
    first = pairs.first[:, :, 0].gather(1, place[:, 0])[:, None, :]
    return replace(pairs, first=first, there=pairs.there.any(1, keepdim=True))


def drawn(pairs: MixingPairs, count: int, source: torch.Generator) -> MixingPairs:
    """``count`` pairs an anchor, drawn uniformly with replacement: (A, 1, count)."""

    def operand(index: Tensor, there: Tensor) -> Tensor:
        some = there.sum(1, keepdim=True)  # lists have what is there in front
        shape = (len(index), count)
        uniform = sampling.uniform(shape, source).to(index.device)
        return index.gather(1, (uniform * some).long().clamp_max(index.shape[1] - 1))[:, None, :]

    first = operand(pairs.first[:, :, 0], pairs.there.any(2))
    second = operand(pairs.second[:, 0, :], pairs.there.any(1))
    there = pairs.there.any(2).any(1)[:, None, None].expand(first.shape)
    return replace(pairs, first=first, second=second, there=there)


def _operand(
    relation: Relation, kind: str, hardest: int | None, fewer: bool
) -> tuple[Tensor, Tensor]:
    """Indices (A, n) of an operand, and which of them are there."""
    if kind == "anchor":
        count = len(relation.anchors)
        start = 0 if relation.itself else len(relation.points)
        index = torch.arange(start, start + count, device=relation.anchors.device)[:, None]
        return index, torch.ones_like(index, dtype=torch.bool)
    if kind == "positive":
        return _listed(relation.positive())
    negative = relation.negative()
    if hardest is None:
        return _listed(negative)
    with torch.no_grad():
        s = inner(relation.anchors, relation.points)
        index = nearest_negatives(s, negative, hardest, fewer)
    return index, negative.gather(1, index)


def _listed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of True of every row, in front and padded to the longest; at least one column."""
    longest = max(1, int(mask.sum(1).max())) if len(mask) else 1
    index = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :longest]
    return index, mask.gather(1, index)
