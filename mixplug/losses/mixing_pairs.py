"""Mixing pairs M(a): the pairs of points that are mixed for each anchor (§4.4.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.functional.similarity import nearest_negatives
from mixplug.losses.relation import Relation, inner
from mixplug.renamed import renamed_attributes

# Operands of each kind of pair, and their labels relative to the anchor (eqs. 4.5 and 4.6).
PAIRS = {
    "pos-neg": ("positive", "negative"),
    "anc-neg": ("anchor", "negative"),
    "pos-pos": ("positive", "positive"),
    "neg-neg": ("negative", "negative"),
}
LABEL = {"anchor": 1.0, "positive": 1.0, "negative": 0.0}


@renamed_attributes(of="select")
@dataclass(frozen=True)
class MixingPairs:
    """Pairs of every anchor, as indices of points that broadcast to (A, F, S).

    The sets are the ordered products of §4.4.2, including the diagonal: U⁺² contains (p, p'),
    (p', p) and (p, p). If anchors are not points, anchor i has the index P + i.

    Attributes:
        first: indices of first operands, (A, F, 1), or (A, 1, S) if the pairs are not a product.
        second: indices of second operands, (A, 1, S).
        mask: (A, F, S) bool, False for padding of anchors with fewer pairs than others.
        first_label: label y of the first operand.
        second_label: label y of the second operand.
        points: number P of points.
        outside: whether the first operand is an anchor that is not a point.
    """

    first: Tensor
    second: Tensor
    mask: Tensor
    first_label: float
    second_label: float
    points: int
    outside: bool = False

    def weights(self, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Weights y of the positive and 1 − y of the negative term (eq. 4.9), (A, F, S) each."""
        y = lam * self.first_label + (1 - lam) * self.second_label
        return self.mask * y, self.mask * (1 - y)

    def select(self, anchors: slice | Tensor) -> MixingPairs:
        """The pairs of some anchors."""
        first, second, mask = self.first[anchors], self.second[anchors], self.mask[anchors]
        return replace(self, first=first, second=second, mask=mask)

    def pick(self, lam: Tensor) -> Tensor:
        """λ of these pairs, (A, F, S), from a tensor indexed by [anchor, first, second].

        Raises:
            ValueError: ``lam`` does not cover all anchors and points.
        """
        anchors, points = len(self.mask), self.points
        needed = (anchors, points + (anchors if self.outside else 0), points)
        if lam.dim() != 3 or any(n < least for n, least in zip(lam.shape, needed, strict=True)):
            raise ValueError(
                f"lam needs to be a number, or a tensor {needed} indexed by [anchor, first, "
                f"second], got {tuple(lam.shape)}."
            )
        anchor = torch.arange(len(self.mask), device=lam.device)[:, None, None]
        return lam[anchor, self.first.to(lam.device), self.second.to(lam.device)]

    def distinct(self) -> tuple[Tensor, Tensor, Tensor]:
        """The distinct unordered pairs of all anchors, so that each is mixed only once.

        Returns:
            Indices (V,) of the points with the lower index and (V,) of the other points; and the
            number in [0, V) of each pair of each anchor, (A, F, S), which is 0 for padding.
        """
        first, second = self.first.expand(self.mask.shape), self.second.expand(self.mask.shape)
        key = torch.minimum(first, second) * self.points + torch.maximum(first, second)
        keys, numbers = torch.unique(key[self.mask], return_inverse=True)
        number = torch.zeros_like(key).masked_scatter_(self.mask, numbers)
        return keys // self.points, keys % self.points, number


def mixing_pairs(
    relation: Relation, kind: str, hardest: int | None = None, fewer: bool = False
) -> MixingPairs:
    """All pairs of one kind for every anchor.

    Args:
        relation: anchors and points.
        kind: a key of :data:`PAIRS`.
        hardest: number k of hardest negatives of an anchor to use; None uses all negatives.
        fewer: whether an anchor may have fewer than k negatives. It then uses all of them.

    Raises:
        ValueError: an anchor has fewer than k negatives and ``fewer`` is False.
    """
    first_kind, second_kind = PAIRS[kind]
    first, first_mask = _operand(relation, first_kind, hardest, fewer)
    second, second_mask = _operand(relation, second_kind, hardest, fewer)
    mask = first_mask[:, :, None] & second_mask[:, None, :]
    labels = LABEL[first_kind], LABEL[second_kind]
    outside = first_kind == "anchor" and not relation.itself
    points = len(relation.points)
    return MixingPairs(first[:, :, None], second[:, None, :], mask, *labels, points, outside)


def draw_firsts(pairs: MixingPairs, source: torch.Generator) -> MixingPairs:
    """Draw one first operand uniformly for each second: S pairs per anchor instead of F·S."""
    count = pairs.mask.any(2).sum(1)  # padding is at the end of each row
    shape = pairs.second.shape
    uniform = sampling.uniform(shape, source).to(count.device)
    index = (uniform * count[:, None, None]).long().clamp_max(pairs.first.shape[1] - 1)
    first = pairs.first[:, :, 0].gather(1, index[:, 0])[:, None, :]
    return replace(pairs, first=first, mask=pairs.mask.any(1, keepdim=True))


def draw_pairs(pairs: MixingPairs, count: int, source: torch.Generator) -> MixingPairs:
    """Draw ``count`` pairs per anchor, uniformly with replacement: (A, 1, count)."""

    def operand(index: Tensor, mask: Tensor) -> Tensor:
        choices = mask.sum(1, keepdim=True)  # padding is at the end of each row
        shape = (len(index), count)
        uniform = sampling.uniform(shape, source).to(index.device)
        column = (uniform * choices).long().clamp_max(index.shape[1] - 1)
        return index.gather(1, column)[:, None, :]

    first = operand(pairs.first[:, :, 0], pairs.mask.any(2))
    second = operand(pairs.second[:, 0, :], pairs.mask.any(1))
    mask = pairs.mask.any(2).any(1)[:, None, None].expand(first.shape)
    return replace(pairs, first=first, second=second, mask=mask)


def _operand(
    relation: Relation, kind: str, hardest: int | None, fewer: bool
) -> tuple[Tensor, Tensor]:
    """Indices (A, n) of one operand, and a mask (A, n) that is False for padding."""
    if kind == "anchor":
        count = len(relation.anchors)
        start = 0 if relation.itself else len(relation.points)
        index = torch.arange(start, start + count, device=relation.anchors.device)[:, None]
        return index, torch.ones_like(index, dtype=torch.bool)
    if kind == "positive":
        return _column_indices(relation.positive())
    negative = relation.negative()
    if hardest is None:
        return _column_indices(negative)
    with torch.no_grad():
        s = inner(relation.anchors, relation.points)
        index = nearest_negatives(s, negative, hardest, fewer)
    return index, negative.gather(1, index)


def _column_indices(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Column indices of the True entries of each row, padded at the end to a common length >= 1.

    Returns:
        Indices (A, n), and a mask (A, n) that is False for padding.
    """
    longest = max(1, int(mask.sum(1).max())) if len(mask) else 1
    index = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :longest]
    return index, mask.gather(1, index)
