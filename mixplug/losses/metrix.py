"""Metrix: a pair or proxy loss over clean and over mixed examples (chapter 4)."""

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
from mixplug.losses.closed_form import anchors_at_a_time, in_chunks, similarities
from mixplug.losses.mixing import (
    LEVELS,
    MixingLoss,
    draws,
    embed_mixed,
    hardest_by_level,
    linear,
    local_draws,
    source_at,
)
from mixplug.losses.mixing_pairs import PAIRS, MixingPairs, mixing_pairs, thin
from mixplug.losses.relation import Relation, inner
from mixplug.sampling import Generators

DEFAULT_PAIRS = ("pos-neg", "anc-neg")


@register("Metrix", kind="loss", reference="thesis 4.3", hosts=("timm", "mm", "torch"))
class Metrix(MixingLoss):
    r"""Metrix: a metric loss of clean examples plus the same loss of mixed ones.

    .. math:: \frac{1}{|X|} \sum_a \ell(a) + w \tilde\ell(a) \quad (4.10)

    Every iteration draws one level and one kind of pairs, equal on all ranks, and a λ ~ Beta(α, α)
    for every mixed embedding; λ weighs the first of a pair, which 'pos-neg' and 'anc-neg' name
    first. What is mixed, and how often a mixed embedding is made:

    - 'embed': embeddings, one for every anchor and pair, by closed forms on the Gram matrix;
    - 'feature': maps before pooling, one for every pair of examples (all anchors share it); where
      pooling is the average and all that follows linear, as 'embed', of the unnormalized ones;
    - 'input': examples, of the k hardest negatives of every anchor with the anchor, or with one of
      its positives, so that at most k·B more are embedded ('pos-pos': every pair of a class, (m-1)
      B / 2 and each with itself; 'neg-neg': k² B at most), all at once: in chunks batch norm would
      see each of them apart, and twice.

    A proxy has neither features nor input. At these two levels 'anc-neg' is undefined with a proxy
    loss, so that by default only 'pos-neg' is mixed; and a loss whose points are proxies (ProxyNCA)
    takes mixed examples as anchors, with the label between a mixed example and a proxy interpolated
    as in (4.8).

    Args:
        loss: a loss of form (4.3), its config or its name.
        level: 'input', 'feature', 'embed', or several to draw from.
        pairs: 'pos-neg', 'anc-neg', 'pos-pos', 'neg-neg', or several to draw from; None is the
            first two, as far as they are defined.
        alpha: α > 0.
        w: weight of the mixed loss, >= 0.
        hardest: k, how many of the nearest negatives of an anchor are mixed; a number, or a dict of
            numbers by level. None is 3 for 'input' and all for the others.
        renormalize: whether mixed embeddings are ℓ2-normalized again, where the loss normalizes.
        chunk: how many anchors ('embed') or mixed maps or examples are in memory at a time, the
            others are computed again in the backward pass. None goes by their size: half as many
            similarities as there are clean ones, 2²⁴ elements of mixed maps. At 'feature' the mixed
            embeddings (½B², D) are all held, and similarities of as many elements.

    Raises:
        ValueError: a loss that is not of form (4.3), or a setting that is not allowed.
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
        self.levels = _several(level)
        self.pairs = None if pairs is None else _several(pairs)
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
        """The kinds of pairs to draw from at a level."""
        if not hasattr(self.loss, "proxies") or level == "embed":
            return self.pairs or DEFAULT_PAIRS
        examples = [k for k in PAIRS if "anchor" not in PAIRS[k]] if self.loss.mixes_points else []
        defined = tuple(examples) or ("pos-neg",)
        if self.pairs is not None and not _within(self.pairs, defined):
            raise ValueError(
                f"Metrix with {self.loss.name} at level {level!r} can mix only "
                f"{' or '.join(map(repr, defined))}, got pairs={self.pairs}: of other pairs one is "
                f"a proxy, which has an embedding but no {level} to mix. Use level='embed', or "
                f"leave pairs out."
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
        """(4.10) over a batch, see :class:`MixingLoss`."""
        normal, labels = self.loss.prepare(embeddings, labels)
        synced = draws(generators).synced
        level = sampling.branch(self.levels, synced, [1] * len(self.levels))
        kinds = self._pairs_at[level]
        kind = sampling.branch(kinds, synced, [1] * len(kinds))
        source = source_at(level, inputs, features, len(labels), self.name)
        level = level if source is not None else "embed"
        relation = self.loss.relation(normal, labels)
        clean = self.loss.clean(relation)
        if not self.w:
            return clean
        local = local_draws(generators, normal.device)
        return clean + self.w * self._mixed(relation, normal, labels, level, kind, source, local)

    def mixed(self, embeddings: Tensor, labels: Tensor, lam: Tensor | float, pairs: str) -> Tensor:
        """The mixed loss (4.9) at level 'embed', averaged over anchors; nothing is drawn.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.
            lam: λ in [0, 1], the weight of the first of a pair: a number, or (B, B, B) indexed
                [anchor, first, second]. With proxies (A, P, P) for A anchors and P points, and for
                'anc-neg' (A, P + A, P), where P + a is the index of anchor a.
            pairs: 'pos-neg', 'anc-neg', 'pos-pos' or 'neg-neg'.

        Raises:
            ValueError: λ outside [0, 1], unknown pairs, see :class:`MetricLoss`.
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
        there = mixing_pairs(relation, pairs, self.hardest.get("embed"))
        if isinstance(lam, Tensor) and lam.dim():
            lam = there.pick(lam).to(normal)
        else:
            lam = normal.new_tensor(float(lam)).expand(there.there.shape)
            both_terms = there.first_label != there.second_label and 0 < lowest < 1
            if both_terms and self.loss.form.cancels:
                warnings.warn(
                    f"Metrix with {self.loss.name}: with one λ for all pairs the two terms of the "
                    f"mixed loss have opposite gradients, so it teaches nothing. Draw a λ per "
                    f"pair.",
                    stacklevel=2,
                )
        return self._closed_form(relation, there, lam).mean()

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
        """The mixed loss at a level, with λ and, for 'input', positives drawn from ``local``."""
        hardest = self.hardest.get(level)
        if source is not None and not self.loss.mixes_points:
            pairs = mixing_pairs(Relation.among(embeddings, labels), "anc-neg", hardest)
            return self._mixed_anchors(labels, pairs, relation, source, local, self._chunk(level))
        pairs = mixing_pairs(relation, kind, hardest)
        raw = None if source is None else linear(source, self.renormalize)
        if raw is not None:
            relation, source = replace(relation, points=raw), None
        if source is None:
            relation, pairs, idle = _with_pairs(relation, pairs)
            drawn = sampling.beta(self.alpha, pairs.there.numel(), local)
            lam = drawn.view(pairs.there.shape).to(relation.anchors)
            share = self._closed_form(relation, pairs, lam)
            return replace(share, anchors=share.anchors + idle).mean()
        if level == "input" and kind == "pos-neg" and relation.itself:
            pairs = thin(pairs, local)
        return self._by_examples(relation, pairs, source, local, self._chunk(level)).mean()

    def _chunk(self, level: str) -> int | None:
        """How many mixtures to embed at a time; examples all at once, as batch norm wants them."""
        return sys.maxsize if self.chunk is None and level == "input" else self.chunk

    def _closed_form(self, relation: Relation, pairs: MixingPairs, lam: Tensor) -> Share:
        """(4.9) from inner products of anchors and points, some anchors at a time."""
        s = similarities(relation, pairs, lam, self.renormalize)

        def share(anchors: slice) -> Share:
            positive, negative = pairs.of(anchors).weights(lam[anchors])
            return self.loss.share(s(anchors).flatten(1), positive.flatten(1), negative.flatten(1))

        if not len(relation.anchors):
            return _nothing(relation)
        size = self.chunk or anchors_at_a_time(relation, pairs.there[0].numel())
        return in_chunks(share, len(relation.anchors), size)

    def _by_examples(
        self,
        relation: Relation,
        pairs: MixingPairs,
        source: Source,
        local: torch.Generator,
        chunk: int | None,
    ) -> Share:
        """(4.9) with embeddings of mixed examples, one for every unordered pair of examples."""
        first, second, place = pairs.distinct()
        if not len(first):
            return _nothing(relation)
        lam = sampling.beta(self.alpha, len(first), local).to(relation.anchors.device)
        mixed = embed_mixed(source, first, second, lam, self.renormalize, chunk)

        def share(anchors: slice) -> Share:
            some, at = pairs.of(anchors), place[anchors]
            s = inner(relation.anchors[anchors], mixed).gather(1, at.flatten(1))
            weight = torch.where(some.first <= some.second, lam[at], 1 - lam[at])
            positive, negative = some.weights(weight)
            return self.loss.share(s, positive.flatten(1), negative.flatten(1))

        # As many anchors as dimensions: their similarities are no larger than what was mixed.
        return in_chunks(share, len(relation.anchors), mixed.shape[1])

    def _mixed_anchors(
        self,
        labels: Tensor,
        pairs: MixingPairs,
        relation: Relation,
        source: Source,
        local: torch.Generator,
        chunk: int | None,
    ) -> Tensor:
        """(4.9) with mixed examples as anchors and proxies as points."""
        first, second, _ = pairs.distinct()
        if not len(first):
            return _nothing(relation).mean()
        lam = sampling.beta(self.alpha, len(first), local).to(labels.device)
        mixed = embed_mixed(source, first, second, lam, self.renormalize, chunk)
        same = relation.point_labels == labels[:, None]
        y = mix(same[first].to(mixed), same[second].to(mixed), lam.to(mixed))
        return self.loss.share(inner(mixed, relation.points), y, 1 - y).mean()


def _with_pairs(relation: Relation, pairs: MixingPairs) -> tuple[Relation, MixingPairs, int]:
    """Of proxies as anchors those that have pairs in this batch, and how many have none."""
    if relation.itself:
        return relation, pairs, 0
    some = pairs.there.flatten(1).any(1).nonzero()[:, 0]
    anchors, labels = relation.anchors[some], relation.anchor_labels[some]
    rest = replace(relation, anchors=anchors, anchor_labels=labels)
    return rest, pairs.of(some), len(pairs.there) - len(some)


def _nothing(relation: Relation) -> Share:
    """The share of anchors without pairs: zero, with gradients of zero."""
    zero = relation.anchors.sum() * 0
    return Share(zero, zero, len(relation.anchors), torch.zeros((), device=zero.device))


def _several(value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _within(given: tuple[str, ...], allowed: object) -> bool:
    return bool(given) and all(name in allowed for name in given)  # type: ignore[operator]
