"""MoCHi, a method that Metrix is compared with (Table 4.4): mixed embeddings as negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.pairwise import Share
from mixplug.losses.base import PairLoss, Source
from mixplug.losses.closed_form import anchors_per_chunk, similarities, sum_over_chunks
from mixplug.losses.mixing import MixingLoss, local_generator
from mixplug.losses.mixing_pairs import MixingPairs, draw_pairs, mixing_pairs
from mixplug.losses.relation import Relation, inner
from mixplug.sampling import Generators

HIGHEST = {"neg-neg": 1.0, "anc-neg": 0.5}  # largest λ: the negative must outweigh the anchor


@register(
    "MoCHi", kind="loss", reference="Kalantidis 2020; thesis 4.4.3", hosts=("timm", "mm", "torch")
)
class MoCHi(MixingLoss):
    r"""MoCHi: the clean loss with mixed embeddings as additional negatives (§4.4.3).

    .. math::
        \tau\Big(\sigma^+\big(\sum_{p \in P(a)} \rho^+(s(a, p))\big)
        + \sigma^-\big(\sum_{n \in N(a) \cup V(a)} \rho^-(s(a, n))\big)\Big)

    V(a) holds mixed embeddings, all with label 0. They mix the pairs M(a) = U⁻(a)² ('neg-neg', with
    λ ~ U(0, 1)), the pairs S(a) × U⁻(a) ('anc-neg', with λ ~ U(0, 0.5) as the weight of the anchor,
    to avoid false negatives), or both. U⁻(a) are the k hardest negatives of the anchor, or all if
    there are fewer. As in the original, one sum contains both the clean and the mixed negatives, so
    there is no weight w.

    Differences to the original that follow §4.4.3: k = 100; V(a) contains all pairs of M(a), while
    the original draws a number of each kind (see ``synthetic``); the negatives come from the
    batch instead of a queue; and gradients flow through the mixed embeddings, because there is no
    second encoder with detached keys. 'neg-neg' and 'anc-neg' are two rows of Table 4.4; the
    default uses both, as in the original.

    Args:
        loss: a pair loss (eq. 4.3), its config or its name.
        pairs: 'neg-neg', 'anc-neg', or both.
        hardest: number k of hardest negatives of an anchor to mix.
        synthetic: number of pairs to draw per anchor, uniformly with replacement: a number, or a
            dict of numbers by kind of pairs. None uses every pair of M(a) once.
        alpha: parameter α > 0 of λ ~ Beta(α, α), which is halved for 'anc-neg'. α = 1 is uniform.
        renormalize: whether to ℓ2-normalize mixed embeddings again, if the loss normalizes.

    Raises:
        ValueError: the loss is not a pair loss, or a setting is not allowed.
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
                f"None, an integer >= 1, or a dict of such integers by {tuple(HIGHEST)}",
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
        local = local_generator(generators, relation.anchors.device)
        mixed = []
        for kind in self.pairs:
            pairs = mixing_pairs(relation, kind, self.hardest, fewer=True)
            if kind in self.synthetic:
                pairs = draw_pairs(pairs, self.synthetic[kind], local)
            lam = sampling.beta(self.alpha, pairs.mask.numel(), local) * HIGHEST[kind]
            mixed.append((pairs, lam.view(pairs.mask.shape).to(relation.anchors)))
        return self._extended(relation, mixed)

    def mixed(self, embeddings: Tensor, labels: Tensor, lam: Tensor | float, pairs: str) -> Tensor:
        """The loss with all mixed negatives of one kind of pairs, for given λ.

        Args:
            embeddings: (B, D).
            labels: classes, (B,) integers.
            lam: λ, the weight of the first operand of a pair: a number, or a tensor (B, B, B)
                indexed by [anchor, first, second], see :meth:`Metrix.mixed`.
            pairs: 'neg-neg' or 'anc-neg'.

        Raises:
            ValueError: λ is outside [0, 1] (for 'anc-neg', outside [0, 0.5]), or ``pairs`` is
                unknown.
        """
        self.require(pairs in HIGHEST, "pairs", pairs, f"in {tuple(HIGHEST)}")
        values = torch.as_tensor(lam)
        in_range = bool(((values >= 0) & (values <= HIGHEST[pairs])).all())
        self.require(in_range, "lam", lam, f"in [0, {HIGHEST[pairs]:g}] for {pairs!r}")
        relation = self.loss.relation(*self.loss.prepare(embeddings, labels))
        mixed = mixing_pairs(relation, pairs, self.hardest, fewer=True)
        weight = mixed.pick(values).to(relation.anchors) if values.dim() else float(values)
        return self._extended(relation, [(mixed, weight)])

    def _extended(
        self, relation: Relation, mixed: Sequence[tuple[MixingPairs, Tensor | float]]
    ) -> Tensor:
        """The pair loss (eq. 4.3) with mixed embeddings as additional negatives, in chunks."""
        clean = inner(relation.anchors, relation.points)
        positive, negative = relation.positive(), relation.negative()
        to_mixed = [similarities(relation, *one, self.renormalize) for one in mixed]

        def share(anchors: slice) -> Share:
            s = [clean[anchors], *(similarity(anchors).flatten(1) for similarity in to_mixed)]
            masks = [pairs.mask[anchors].flatten(1) for pairs, _ in mixed]
            zeros = [torch.zeros_like(mask) for mask in masks]
            return self.loss.share(
                torch.cat(s, 1),
                torch.cat([positive[anchors], *zeros], 1),
                torch.cat([negative[anchors], *masks], 1),
            )

        per_anchor = clean.shape[1] + sum(pairs.mask[0].numel() for pairs, _ in mixed)
        size = anchors_per_chunk(relation, per_anchor)
        total = sum_over_chunks(share, len(relation.anchors), size)
        if not bool(total.with_positives):
            return self.loss.without_positives(relation.anchors, relation.points)
        return total.mean()
