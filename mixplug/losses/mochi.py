"""MoCHi as a comparator of Metrix (Table 4.4): mixed embeddings that are always negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.pairwise import Share
from mixplug.losses.base import PairLoss, Source
from mixplug.losses.closed_form import anchors_at_a_time, in_chunks, similarities
from mixplug.losses.mixing import MixingLoss, local_draws
from mixplug.losses.mixing_pairs import MixingPairs, drawn, mixing_pairs
from mixplug.losses.relation import Relation, inner
from mixplug.sampling import Generators

HIGHEST = {"neg-neg": 1.0, "anc-neg": 0.5}  # of λ: the anchor weighs less than the negative


@register("MoCHi", kind="loss", reference="4.4.3, Kalantidis 2020", hosts=("timm", "mm", "torch"))
class MoCHi(MixingLoss):
    r"""The clean loss with more negatives: mixtures of the hardest ones, or of them and the anchor.

    .. math::
        \tau\Big(\sigma^+\big(\sum_{p \in P(a)} \rho^+(s(a, p))\big)
        + \sigma^-\big(\sum_{n \in N(a) \cup V(a)} \rho^-(s(a, n))\big)\Big)

    V(a) are mixed embeddings, all with label 0, of M(a) = U⁻(a)² ('neg-neg', λ ~ U(0, 1)), of
    S(a) × U⁻(a) ('anc-neg', λ ~ U(0, 0.5) weighs the anchor, so that none becomes a false
    negative), or of both, where U⁻(a) are the k negatives nearest to the anchor, all if there are
    fewer. They extend N(a): clean and mixed negatives are in one sum of one loss, as in the
    original, and there is no weight w.

    From section 4.4.3, and unlike the original: k = 100, V(a) holds all pairs of M(a) (there s and
    s' drawn ones of the two kinds, see ``synthetic``), the k negatives are of the batch and
    not of a queue, and gradients go through the mixed embeddings, since there is no second encoder
    whose keys are constants. 'neg-neg' and 'anc-neg' are two rows of Table 4.4, the default is both
    as in the original.

    Args:
        loss: a loss of form (4.3), its config or its name.
        pairs: 'neg-neg', 'anc-neg', or both.
        hardest: k, of how many nearest negatives.
        synthetic: how many of the pairs are drawn, uniformly with replacement, for an anchor: a
            number, or a dict of numbers by pairs; None is all of M(a), once each.
        alpha: λ ~ Beta(α, α), halved for 'anc-neg'; 1 is the uniform distribution.
        renormalize: whether mixed embeddings are ℓ2-normalized again, where the loss normalizes.

    Raises:
        ValueError: a loss that is not of form (4.3), or a setting that is not allowed.
    """

    def __init__(
        self,
        loss: PairLoss | Mapping[str, object] | str,
        pairs: str | Sequence[str] = ("neg-neg", "anc-neg"),
        hardest: int = 100,
        synthetic: int | Mapping[str, int] | None = None,
        alpha: float = 1.0,
        renormalize: bool = True,
    ) -> None:
        super().__init__(loss, renormalize)
        self.pairs = (pairs,) if isinstance(pairs, str) else tuple(pairs)
        known = bool(self.pairs) and all(kind in HIGHEST for kind in self.pairs)
        self.require(known, "pairs", pairs, f"in {tuple(HIGHEST)}")
        self.require(hardest >= 1, "hardest", hardest, ">= 1")
        self.require(alpha > 0, "alpha", alpha, "> 0")
        if not isinstance(synthetic, Mapping):
            synthetic = {} if synthetic is None else dict.fromkeys(HIGHEST, synthetic)
        for kind, count in synthetic.items():
            self.require(
                kind in HIGHEST and count >= 1,
                "synthetic",
                synthetic,
                f"None, >= 1, or such numbers by {tuple(HIGHEST)}",
            )
        self.synthetic = dict(synthetic)
        self.hardest, self.alpha = hardest, alpha

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        features: Source | None = None,
        inputs: Source | None = None,
        generators: Generators | None = None,
    ) -> Tensor:
        """See :class:`MixingLoss`; only embeddings are mixed, maps and examples are not used."""
        relation = self.loss.relation(*self.loss.prepare(embeddings, labels))
        local = local_draws(generators, relation.anchors.device)
        mixed = []
        for kind in self.pairs:
            pairs = mixing_pairs(relation, kind, self.hardest, fewer=True)
            if kind in self.synthetic:
                pairs = drawn(pairs, self.synthetic[kind], local)
            lam = sampling.beta(self.alpha, pairs.there.numel(), local) * HIGHEST[kind]
            mixed.append((pairs, lam.view(pairs.there.shape).to(relation.anchors)))
        return self._extended(relation, mixed)

    def mixed(self, embeddings: Tensor, labels: Tensor, lam: Tensor | float, pairs: str) -> Tensor:
        """The loss with all mixed negatives of a kind of pairs; nothing is drawn.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.
            lam: λ, the weight of the first of a pair: a number, or (B, B, B) indexed [anchor,
                first, second], see :meth:`Metrix.mixed`.
            pairs: 'neg-neg' or 'anc-neg'.

        Raises:
            ValueError: λ outside [0, 1], or [0, 0.5] of 'anc-neg'; unknown pairs.
        """
        self.require(pairs in HIGHEST, "pairs", pairs, f"in {tuple(HIGHEST)}")
        given = torch.as_tensor(lam)
        inside = bool(((given >= 0) & (given <= HIGHEST[pairs])).all())
        self.require(inside, "lam", lam, f"in [0, {HIGHEST[pairs]:g}] for {pairs!r}")
        relation = self.loss.relation(*self.loss.prepare(embeddings, labels))
        there = mixing_pairs(relation, pairs, self.hardest, fewer=True)
        weight = there.pick(given).to(relation.anchors) if given.dim() else float(given)
        return self._extended(relation, [(there, weight)])

    def _extended(
        self, relation: Relation, mixed: Sequence[tuple[MixingPairs, Tensor | float]]
    ) -> Tensor:
        """(4.3) with mixed embeddings among the negatives, some anchors at a time."""
        clean = inner(relation.anchors, relation.points)
        positive, negative = relation.positive(), relation.negative()
        to_mixed = [similarities(relation, *some, self.renormalize) for some in mixed]

        def share(anchors: slice) -> Share:
            s = [clean[anchors], *(of(anchors).flatten(1) for of in to_mixed)]
            there = [pairs.there[anchors].flatten(1) for pairs, _ in mixed]
            none = [torch.zeros_like(some) for some in there]
            return self.loss.share(
                torch.cat(s, 1),
                torch.cat([positive[anchors], *none], 1),
                torch.cat([negative[anchors], *there], 1),
            )

        per_anchor = clean.shape[1] + sum(pairs.there[0].numel() for pairs, _ in mixed)
        size = anchors_at_a_time(relation, per_anchor)
        total = in_chunks(share, len(relation.anchors), size)
        self.loss.require_positives(total.with_positives)
        return total.mean()
