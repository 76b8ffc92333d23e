"""Metrix: a pair or proxy loss over clean and mixed examples (chapter 4)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.aligned import mix
from mixplug.functional.pairwise import Share
from mixplug.losses.base import PairLoss, Source
from mixplug.losses.closed_form import anchors_per_chunk, similarities, sum_over_chunks
from mixplug.losses.mixing import (
    LEVELS,
    MixingLoss,
    embed_mixed,
    generators_or_global,
    hardest_by_level,
    linear_embeddings,
    local_generator,
    source_at,
)
from mixplug.losses.mixing_pairs import PAIRS, MixingPairs, draw_firsts, mixing_pairs
from mixplug.losses.relation import Relation, inner
from mixplug.sampling import Generators

DEFAULT_PAIRS = ("pos-neg", "anc-neg")


@register("Metrix", kind="loss", reference="thesis 4.3", hosts=("timm", "mm", "torch"))
class Metrix(MixingLoss):
    r"""Metrix: the clean loss plus the weighted loss over mixed examples (eq. 4.10).

    .. math::
        \frac{1}{|X|} \sum_a \ell(a) + w \tilde\ell(a)

    Every iteration draws one level and one kind of pairs, the same on all ranks, and one
    λ ~ Beta(α, α) for every mixed embedding. λ weighs the first operand of a pair, which is named
    first in 'pos-neg' and 'anc-neg'. The level determines what is mixed:

    - 'embed' mixes embeddings. There is one mixed embedding per anchor and pair, computed in closed
      form from the Gram matrix.
    - 'feature' mixes feature maps before pooling. There is one mixed map per pair of examples,
      shared by all anchors. If only average pooling and linear layers follow, the unnormalized
      embeddings are mixed instead, as at level 'embed', with the same result.
    - 'input' mixes examples: the k hardest negatives of each anchor with the anchor ('anc-neg') or
      with one of its positives ('pos-neg'), so the network embeds at most k·B more examples. For m
      examples per class, 'pos-pos' mixes all pairs within a class, (m - 1) B / 2, and each example
      with itself; 'neg-neg' mixes at most k² B pairs. All mixed examples form one batch, because in
      chunks batch normalization would compute statistics per chunk, and update them twice.

    A proxy has neither features nor an input. At these two levels, a proxy loss therefore cannot
    mix 'anc-neg' and by default mixes only 'pos-neg'. If the points of the loss are proxies (as in
    ProxyNCA), mixed examples are anchors, and the label between a mixed example and a proxy is
    interpolated as in eq. 4.8.

    Args:
        loss: a pair loss (eq. 4.3), its config or its name.
        level: 'input', 'feature' or 'embed', or several levels to draw from.
        pairs: 'pos-neg', 'anc-neg', 'pos-pos' or 'neg-neg', or several kinds to draw from. None is
            'pos-neg' and 'anc-neg', if the loss allows both.
        alpha: parameter α > 0 of λ ~ Beta(α, α).
        w: weight of the mixed loss, >= 0.
        hardest: number k of hardest negatives of an anchor to mix: a number, or a dict of numbers
            by level; or all, if an anchor has fewer. None is 3 for 'input', and all negatives for
            the other levels.
        renormalize: whether to ℓ2-normalize mixed embeddings again, if the loss normalizes.
        chunk: number of anchors ('embed'), mixed maps or mixed examples in memory at a time. With
            several chunks, they are recomputed in the backward pass. None chooses the size: half as
            many similarities as clean ones, 2²⁴ elements of mixed maps, and all examples at once.
            At level 'feature', all mixed embeddings (½B², D) are in memory in any case, and
            similarities of the same size.

    Raises:
        ValueError: the loss is not a pair loss, or a setting is not allowed.
    """

    def __init__(
        self,
        loss: PairLoss | Mapping[str, object] | str,
        level: str | tuple[str, ...] = "feature",
        pairs: str | tuple[str, ...] | None = None,
        alpha: float = 2.0,
        w: float = 0.4,
        hardest: int | Mapping[str, int] | None = None,
        renormalize: bool = True,
        chunk: int | None = None,
    ) -> None:
        super().__init__(loss, renormalize)
        self.levels = _as_tuple(level)
        self.pairs = None if pairs is None else _as_tuple(pairs)
        self.require(_within(self.levels, LEVELS), "level", level, f"in {LEVELS}")
        self.require(
            self.pairs is None or _within(self.pairs, PAIRS), "pairs", pairs, f"in {tuple(PAIRS)}"
        )
        self.require(alpha > 0, "alpha", alpha, "> 0")
        self.require(w >= 0, "w", w, ">= 0")
        self.require(chunk is None or chunk >= 1, "chunk", chunk, ">= 1 or None")
        self.hardest = hardest_by_level(hardest, self.name)
        self.alpha, self.w, self.chunk = alpha, w, chunk
        self._pairs_at = {name: self._defined(name) for name in self.levels}

    def _defined(self, level: str) -> tuple[str, ...]:
        """Kinds of pairs to draw from at a level."""
        if not hasattr(self.loss, "proxies") or level == "embed":
            return self.pairs or DEFAULT_PAIRS
        examples = [k for k in PAIRS if "anchor" not in PAIRS[k]] if self.loss.mixes_points else []
        defined = tuple(examples) or ("pos-neg",)
        if self.pairs is not None and not _within(self.pairs, defined):
            raise ValueError(
                f"Metrix with {self.loss.name} at level {level!r} can mix only "
                f"{' or '.join(map(repr, defined))}, got pairs={self.pairs}: other pairs contain a "
                f"proxy, which has an embedding but no {level} to mix. Use level='embed', or "
                f"omit pairs."
            )
        return self.pairs or ("pos-neg",)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        features: Source | None = None,
        inputs: Source | None = None,
        generators: Generators | None = None,
    ) -> Tensor:
        """The loss of a batch (eq. 4.10), see :class:`MixingLoss`."""
        normal, labels = self.loss.prepare(embeddings, labels)
        synced = generators_or_global(generators).synced
        level = sampling.branch(self.levels, synced, [1] * len(self.levels))
        kinds = self._pairs_at[level]
        kind = sampling.branch(kinds, synced, [1] * len(kinds))
        source = source_at(level, inputs, features, len(labels), self.name)
        level = level if source is not None else "embed"
        relation = self.loss.relation(normal, labels)
        clean = self.loss.clean(relation)
        if not self.w or self.loss.skipped:
            return clean
        local = local_generator(generators, normal.device)
        return clean + self.w * self._mixed(relation, normal, labels, level, kind, source, local)

    def mixed(self, embeddings: Tensor, labels: Tensor, lam: Tensor | float, pairs: str) -> Tensor:
        """The mixed loss (eq. 4.9) at level 'embed', averaged over anchors, for given λ.

        Args:
            embeddings: (B, D).
            labels: classes, (B,) integers.
            lam: λ in [0, 1], the weight of the first operand of a pair: a number, or a tensor
                indexed by [anchor, first, second]. The tensor is (B, B, B). With proxies, it is
                (A, P, P) for A anchors and P points, and (A, P + A, P) for 'anc-neg', where P + a
                is the index of anchor a.
            pairs: 'pos-neg', 'anc-neg', 'pos-pos' or 'neg-neg'.

        Raises:
            ValueError: λ is outside [0, 1], ``pairs`` is unknown, or see :class:`MetricLoss`.
        """
        self.require(pairs in PAIRS, "pairs", pairs, f"in {tuple(PAIRS)}")
        lowest, highest = (
            (float(lam.min()), float(lam.max())) if isinstance(lam, Tensor) else (lam, lam)
        )
        if not 0 <= lowest <= highest <= 1:
            raise ValueError(f"Metrix needs lam in [0, 1], got {lowest} to {highest}.")
        normal, labels = self.loss.prepare(embeddings, labels)
        self.loss.require_positives(len(labels) > 0)
        relation = self.loss.relation(normal, labels)
        mixed = mixing_pairs(relation, pairs, self.hardest.get("embed"), fewer=True)
        if isinstance(lam, Tensor) and lam.dim():
            lam = mixed.pick(lam).to(normal)
        else:
            lam = normal.new_tensor(float(lam)).expand(mixed.mask.shape)
            both_terms = mixed.first_label != mixed.second_label and 0 < lowest < 1
            if both_terms and self.loss.form.cancels:
                warnings.warn(
                    f"Metrix with {self.loss.name} got one λ for all pairs. The two terms of the "
                    f"mixed loss then have opposite gradients, so its gradient is zero. Draw one λ "
                    f"per pair.",
                    stacklevel=2,
                )
        return self._closed_form(relation, mixed, lam).mean()

    def _mixed(
        self,
        relation: Relation,
        embeddings: Tensor,
        labels: Tensor,
        level: str,
        kind: str,
        source: Source | None,
        local: torch.Generator,
    ) -> Tensor:
        """The mixed loss at a level. ``local`` draws λ and, at level 'input', the positives."""
        hardest = self.hardest.get(level)
        if source is not None and not self.loss.mixes_points:
            pairs = mixing_pairs(Relation.among(embeddings, labels), "anc-neg", hardest, True)
            return self._mixed_anchors(labels, pairs, relation, source, local, self._chunk(level))
        pairs = mixing_pairs(relation, kind, hardest, fewer=True)
        raw = None if source is None else linear_embeddings(source, self.renormalize)
        if raw is not None:
            relation, source = replace(relation, points=raw), None
        if source is None:
            relation, pairs, without_pairs = _anchors_with_pairs(relation, pairs)
            drawn = sampling.beta(self.alpha, pairs.mask.numel(), local)
            lam = drawn.view(pairs.mask.shape).to(relation.anchors)
            share = self._closed_form(relation, pairs, lam)
            return replace(share, anchors=share.anchors + without_pairs).mean()
        if level == "input" and kind == "pos-neg" and relation.itself:
            pairs = draw_firsts(pairs, local)
        return self._by_examples(relation, pairs, source, local, self._chunk(level)).mean()

    def _chunk(self, level: str) -> int | None:
        """Number of mixtures to embed at a time. Examples form one batch for batch norm."""
        return sys.maxsize if self.chunk is None and level == "input" else self.chunk

    def _closed_form(self, relation: Relation, pairs: MixingPairs, lam: Tensor) -> Share:
        """The mixed loss (eq. 4.9) from inner products of anchors and points, in chunks."""
        s = similarities(relation, pairs, lam, self.renormalize)

        def share(anchors: slice) -> Share:
            positive, negative = pairs.select(anchors).weights(lam[anchors])
            return self.loss.share(s(anchors).flatten(1), positive.flatten(1), negative.flatten(1))

        if not len(relation.anchors):
            return _zero_share(relation)
        size = self.chunk or anchors_per_chunk(relation, pairs.mask[0].numel())
        return sum_over_chunks(share, len(relation.anchors), size)

    def _by_examples(
        self,
        relation: Relation,
        pairs: MixingPairs,
        source: Source,
        local: torch.Generator,
        chunk: int | None,
    ) -> Share:
        """The mixed loss (eq. 4.9) with one embedding per unordered pair of mixed examples."""
        first, second, number = pairs.distinct()
        if not len(first):
            return _zero_share(relation)
        lam = sampling.beta(self.alpha, len(first), local).to(relation.anchors.device)
        mixed = embed_mixed(source, first, second, lam, self.renormalize, chunk)

        def share(anchors: slice) -> Share:
            chunk_pairs, index = pairs.select(anchors), number[anchors]
            s = inner(relation.anchors[anchors], mixed).gather(1, index.flatten(1))
            in_order = chunk_pairs.first <= chunk_pairs.second
            weight = torch.where(in_order, lam[index], 1 - lam[index])
            positive, negative = chunk_pairs.weights(weight)
            return self.loss.share(s, positive.flatten(1), negative.flatten(1))

        # With D anchors per chunk, the similarities are no larger than the mixed embeddings.
        return sum_over_chunks(share, len(relation.anchors), mixed.shape[1])

    def _mixed_anchors(
        self,
        labels: Tensor,
        pairs: MixingPairs,
        relation: Relation,
        source: Source,
        local: torch.Generator,
        chunk: int | None,
    ) -> Tensor:
        """The mixed loss (eq. 4.9) with mixed examples as anchors and proxies as points."""
        first, second, _ = pairs.distinct()
        if not len(first):
            return _zero_share(relation).mean()
        lam = sampling.beta(self.alpha, len(first), local).to(labels.device)
        mixed = embed_mixed(source, first, second, lam, self.renormalize, chunk)
        same = relation.point_labels == labels[:, None]
        y = mix(same[first].to(mixed), same[second].to(mixed), lam.to(mixed))
        return self.loss.share(inner(mixed, relation.points), y, 1 - y).mean()


def _anchors_with_pairs(
    relation: Relation, pairs: MixingPairs
) -> tuple[Relation, MixingPairs, int]:
    """Drop proxy anchors without pairs in this batch; also return their number."""
    if relation.itself:
        return relation, pairs, 0
    index = pairs.mask.flatten(1).any(1).nonzero()[:, 0]
    anchors, labels = relation.anchors[index], relation.anchor_labels[index]
    reduced = replace(relation, anchors=anchors, anchor_labels=labels)
    return reduced, pairs.select(index), len(pairs.mask) - len(index)


def _zero_share(relation: Relation) -> Share:
    """The share of anchors without any pair: zero, with zero gradients."""
    zero = relation.anchors.sum() * 0
    return Share(zero, zero, len(relation.anchors), torch.zeros((), device=zero.device))


def _as_tuple(value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _within(names: tuple[str, ...], allowed: object) -> bool:
    return bool(names) and all(name in allowed for name in names)  # type: ignore[operator]
