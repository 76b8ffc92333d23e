"""Pr(Pos(a, v)) over the mixed embeddings of many batches, Figure 4.2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mixplug.functional.positivity import acts_positive, expected_positive
from mixplug.losses.closed_form import similarities
from mixplug.losses.mixing_pairs import mixing_pairs
from mixplug.losses.pair import MultiSimilarity
from mixplug.losses.relation import Relation

GRID = tuple(i / 20 for i in range(21))
_PAIRS = 1 << 20  # similarities per block
_RULES = (acts_positive, expected_positive)  # as measured, and by (4.14)


@dataclass
class Positivity:
    """Share of mixed embeddings that act as positives, for each λ of a grid.

    Every positive of an anchor is mixed with every negative, as in Metrix at level 'embed', but
    all pairs share one λ.

    Attributes:
        grid: values of λ in [0, 1], the weight of the positive.
        loss: the loss with β, γ and m of acting as a positive.
        renormalize: whether mixed embeddings are ℓ2-normalized again.
    """

    grid: Sequence[float] = GRID
    loss: MultiSimilarity = field(default_factory=MultiSimilarity)
    renormalize: bool = True
    pairs: int = field(default=0, init=False)
    _counts: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.grid or not all(0 <= lam <= 1 for lam in self.grid):
            raise ValueError(f"Positivity needs a grid of λ in [0, 1], got {self.grid!r}.")
        self._counts = torch.zeros(2, len(self.grid), dtype=torch.int64)

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Add the pairs of a batch, on the CPU in float64.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.

        Raises:
            ValueError: see :class:`mixplug.losses.base.MetricLoss`.
        """
        points, labels = self.loss.prepare(embeddings.to("cpu", torch.float64), labels)
        relation = Relation.among(points, labels)
        pairs = mixing_pairs(relation, "pos-neg")
        self.pairs += int(pairs.mask.sum())
        size = max(1, _PAIRS // pairs.mask[0].numel())
        settings = self.loss.beta, self.loss.gamma, self.loss.margin
        for place, lam in enumerate(torch.tensor(self.grid, dtype=torch.float64)):
            s = similarities(relation, pairs, float(lam), self.renormalize)
            for start in range(0, len(points), size):
                anchors = slice(start, start + size)
                known = s(anchors).flatten(1), pairs.mask[anchors].flatten(1), lam, *settings
                for count, rule in zip(self._counts, _RULES, strict=True):
                    count[place] += rule(*known).sum()

    def compute(self) -> tuple[Tensor, Tensor]:
        """Fractions (L,) in float64 for the λ of the grid: as measured, and by (4.14).

        Raises:
            ValueError: no anchor had both a positive and a negative.
        """
        if not self.pairs:
            raise ValueError(
                "Positivity found no anchor with a positive and a negative. Use batches with "
                "several examples of a class: mixplug.data.samplers.MPerClassSampler."
            )
        measured, theory = self._counts.double() / self.pairs
        return measured, theory
