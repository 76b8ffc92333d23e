"""Metrix: a pair or proxy loss over clean and over mixed examples (chapter 4)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mixplug import sampling
from mixplug.catalog import build, register
from mixplug.functional.aligned import mix
from mixplug.functional.pairwise import Share, mixed_similarity
from mixplug.functional.precision import exact_dtype
from mixplug.losses.base import MetricLoss, PairLoss, Relation, inner
from mixplug.losses.mixing_pairs import PAIRS, MixingPairs, mixing_pairs, thin
from mixplug.sampling import Generators

LEVELS = ("input", "feature", "embed")
DEFAULT_PAIRS = ("pos-neg", "anc-neg")
DEFAULT_HARDEST = {"input": 3}
Source = tuple[Tensor, Callable[[Tensor], Tensor]]

_MAP_ELEMENTS = 1 << 24  # of mixed maps at a time: 64 MiB of float32
_LEAST_ELEMENTS = 1 << 14  # of mixed similarities at a time, below which a call costs more


@register("Metrix", kind="loss", reference="thesis 4.3", hosts=("timm", "mm", "torch"))
class Metrix(MetricLoss):
    r"""Clean and mixed loss, :math:`\frac{1}{|X|} \sum_a \ell(a) + w \tilde\ell(a)` (4.10).

    Every iteration draws one level and one kind of pairs, equal on all ranks, and a λ ~ Beta(α, α)
    for every mixed embedding; λ weighs the first of a pair, which 'pos-neg' and 'anc-neg' name
    first. What is mixed, and how often a mixed embedding is made:

    - 'embed': embeddings, one for every anchor and pair, by closed forms on the Gram matrix;
    - 'feature': maps before pooling, one for every pair of examples (all anchors share it);
    - 'input': examples, of the k hardest negatives of every anchor with the anchor, or with one of
      its positives, so that k·B more examples are embedded.

    A proxy has neither features nor input. At these two levels 'anc-neg' is undefined with a proxy
    loss; and a loss whose points are proxies (ProxyNCA) takes mixed examples as anchors, with the
    label between a mixed example and a proxy interpolated as in (4.8).

    Args:
        loss: a loss of form (4.3), its config or its name.
        level: 'input', 'feature', 'embed', or several to draw from.
        pairs: 'pos-neg', 'anc-neg', 'pos-pos', 'neg-neg', or several to draw from; None is the
            first two, as far as they are defined.
        alpha: α > 0.
        w: weight of the mixed loss, >= 0.
        hardest: k, how many of the nearest negatives of an anchor are mixed; a number, or a dict of
            numbers by level. None is 3 for 'input' and all for the others.
        renormalize: whether mixed embeddings are ℓ2-normalised again.
        chunk: how many anchors ('embed') or mixed maps ('feature') are in memory at a time, the
            others are computed again in the backward pass; None goes by their size.

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
        built = loss if isinstance(loss, torch.nn.Module) else build(loss, kind="loss")
        if not isinstance(built, PairLoss):
            raise ValueError(
                f"Metrix needs a loss of form (4.3), a sum over positives and a sum over negatives "
                f"of an anchor, got {type(built).__name__}. Triplets are no such sums."
            )
        super().__init__(built.normalize)
        self.loss = built
        self.levels = _several(level)
        self.pairs = None if pairs is None else _several(pairs)
        self.require(_within(self.levels, LEVELS), "level", level, f"in {LEVELS}")
        self.require(
            self.pairs is None or _within(self.pairs, PAIRS), "pairs", pairs, f"in {tuple(PAIRS)}"
        )
        self.require(alpha > 0, "alpha", alpha, "> 0")
        self.require(w >= 0, "w", w, ">= 0")
        self.require(chunk is None or chunk >= 1, "chunk", chunk, ">= 1 or None")
        by_level = dict(hardest) if isinstance(hardest, Mapping) else {}
        if hardest is not None and not by_level:
            by_level = {name: hardest for name in LEVELS}
        for name, k in by_level.items():
            self.require(name in LEVELS and int(k) >= 1, "hardest", hardest, ">= 1, by level")
        self.alpha, self.w, self.renormalize, self.chunk = alpha, w, renormalize, chunk
        self.hardest = DEFAULT_HARDEST | by_level
        self._pairs_at = {name: self._defined(name) for name in self.levels}

    def _defined(self, level: str) -> tuple[str, ...]:
        """The kinds of pairs to draw from at a level."""
        proxies = hasattr(self.loss, "proxies") and level != "embed"
        if proxies and self.pairs is not None and self.pairs != ("pos-neg",):
            raise ValueError(
                f"Metrix with {self.loss.name} at level {level!r} can mix only 'pos-neg', got "
                f"pairs={self.pairs}: the anchor or the negative of other pairs is a proxy, which "
                f"has an embedding but no {level} to mix. Use level='embed', or leave pairs out."
            )
        return ("pos-neg",) if proxies else self.pairs or DEFAULT_PAIRS

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        features: Source | None = None,
        inputs: Source | None = None,
        generators: Generators | None = None,
    ) -> Tensor:
        """(4.10) over a batch.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.
            features: maps (B, C, H, W) and the function from maps to embeddings, for 'feature'.
            inputs: examples (B, ...) and the function from examples to embeddings, for 'input'.
            generators: of this step; without them draws come from torch's global generator, and
                the level is drawn by every rank for itself.

        Raises:
            ValueError: see :class:`MetricLoss`; or an anchor has fewer than k negatives.
        """
        normal, labels = self.loss.prepare(embeddings, labels)
        draws = generators or Generators(torch.default_generator, torch.default_generator)
        level = sampling.branch(self.levels, draws.synced, [1] * len(self.levels))
        kinds = self._pairs_at[level]
        kind = sampling.branch(kinds, draws.synced, [1] * len(kinds))
        source = {"input": inputs, "feature": features, "embed": None}[level]
        if source is None and level != "embed":
            warnings.warn(
                f"Metrix at level {level!r} was given no {level}s, so it mixes embeddings. Hand "
                f"them over as loss(embeddings, labels, {level}s=(tensor, function)), or set "
                f"level='embed'.",
                stacklevel=2,
            )
            level = "embed"
        relation = self.loss.relation(normal, labels)
        clean = self.loss.clean(relation)
        if not self.w:
            return clean
        local = sampling.generator(sampling.key(draws.local), normal.device)
        return clean + self.w * self._mixed(relation, normal, labels, level, kind, source, local)

    def mixed(self, embeddings: Tensor, labels: Tensor, lam: Tensor | float, pairs: str) -> Tensor:
        """The mixed loss (4.9) at level 'embed', averaged over anchors; nothing is drawn.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.
            lam: λ in [0, 1], the weight of the first of a pair: a number, or (B, B, B) indexed
                [anchor, first, second]. With proxies (A, P, P) for A anchors and P points; for
                'anc-neg' P + a is then the index of anchor a.
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
        relation = self.loss.relation(normal, labels)
        there = mixing_pairs(relation, pairs, self.hardest.get("embed"))
        if isinstance(lam, Tensor) and lam.dim():
            anchor = torch.arange(len(relation.anchors), device=lam.device)[:, None, None]
            lam = lam[anchor, there.first.to(lam.device), there.second.to(lam.device)]
            lam = lam.to(normal)
        elif self.loss.form.cancels:
            warnings.warn(
                f"Metrix with {self.loss.name}: with one λ for all pairs the two terms of the "
                f"mixed loss have opposite gradients, so it teaches nothing. Draw a λ per pair.",
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
            return self._mixed_anchors(embeddings, labels, relation, hardest, source, local)
        pairs = mixing_pairs(relation, kind, hardest)
        if source is not None and getattr(source[1], "commutes", False):
            # Average pooling and a linear layer commute with mixing: embeddings that are not
            # normalised yet stand for the maps.
            relation, source = replace(relation, points=source[1].raw(source[0])), None
        if source is None:
            lam = sampling.beta(self.alpha, pairs.there.numel(), local)
            return self._closed_form(relation, pairs, lam.view(pairs.there.shape)).mean()
        if level == "input" and kind == "pos-neg" and relation.itself:
            pairs = thin(pairs, local)
        return self._by_examples(relation, pairs, source, local).mean()

    def _closed_form(self, relation: Relation, pairs: MixingPairs, lam: Tensor | float) -> Share:
        """(4.9) from inner products of anchors and points, some anchors at a time."""
        points = relation.points
        if not relation.itself:
            points = torch.cat([points, relation.anchors])
        to_points = inner(relation.anchors, points)
        square = points.square().sum(1)
        rows, row = torch.unique(pairs.first, return_inverse=True)
        between = inner(points[rows], points)

        def share(anchors: slice) -> Share:
            some, weight = pairs.of(anchors), lam[anchors] if isinstance(lam, Tensor) else lam
            near = to_points[anchors]
            s = mixed_similarity(
                near.gather(1, some.first.flatten(1)).view(some.first.shape),
                near.gather(1, some.second.flatten(1)).view(some.second.shape),
                square[some.first],
                square[some.second],
                between[row[anchors], some.second],
                weight,
                self.renormalize,
            )
            positive, negative = some.weights(weight)
            return self.loss.share(s.flatten(1), positive.flatten(1), negative.flatten(1))

        return _in_chunks(share, len(to_points), self._anchors_at_a_time(pairs, points))

    def _anchors_at_a_time(self, pairs: MixingPairs, points: Tensor) -> int:
        if self.chunk is not None:
            return self.chunk
        budget = max(_LEAST_ELEMENTS, len(pairs.there) * len(points))
        return max(1, budget // pairs.there[0].numel())

    def _by_examples(
        self, relation: Relation, pairs: MixingPairs, source: Source, local: torch.Generator
    ) -> Share:
        """(4.9) with embeddings of mixed examples, one for every unordered pair of examples."""
        shape, count = pairs.there.shape, len(relation.points)
        first, second = pairs.first.expand(shape), pairs.second.expand(shape)
        key = torch.minimum(first, second) * count + torch.maximum(first, second)
        keys, found = torch.unique(key[pairs.there], return_inverse=True)
        if not len(keys):
            return _nothing(relation)
        lam = sampling.beta(self.alpha, len(keys), local).to(relation.anchors.device)
        mixed = self._embed(source, keys // count, keys % count, lam)
        place = torch.zeros_like(key).masked_scatter_(pairs.there, found)
        s = inner(relation.anchors, mixed).gather(1, place.flatten(1))
        weight = torch.where(first <= second, lam[place], 1 - lam[place])
        positive, negative = pairs.weights(weight)
        return self.loss.share(s, positive.flatten(1), negative.flatten(1))

    def _mixed_anchors(
        self,
        embeddings: Tensor,
        labels: Tensor,
        relation: Relation,
        hardest: int | None,
        source: Source,
        local: torch.Generator,
    ) -> Tensor:
        """(4.9) with mixed examples as anchors and proxies as points."""
        examples = Relation(embeddings, labels, embeddings, labels, itself=True)
        pairs = mixing_pairs(examples, "anc-neg", hardest)
        first, second = (t.expand(pairs.there.shape) for t in (pairs.first, pairs.second))
        key = torch.minimum(first, second) * len(labels) + torch.maximum(first, second)
        keys = key[pairs.there].unique()
        if not len(keys):
            return _nothing(relation).mean()
        first, second = keys // len(labels), keys % len(labels)
        lam = sampling.beta(self.alpha, len(keys), local).to(embeddings.device)
        mixed = self._embed(source, first, second, lam)
        same = relation.point_labels == labels[:, None]
        y = mix(same[first].to(mixed), same[second].to(mixed), lam.to(mixed))
        return self.loss.share(inner(mixed, relation.points), y, 1 - y).mean()

    def _embed(self, source: Source, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
        """Embeddings (V, D) of mixed examples or maps, some at a time."""
        values, function = source
        count = self.chunk or max(1, _MAP_ELEMENTS // values[0].numel())

        def embed(i: Tensor, j: Tensor, weight: Tensor) -> Tensor:
            return function(mix(values[i], values[j], weight))

        chunks = list(zip(first.split(count), second.split(count), lam.split(count), strict=True))
        if len(chunks) == 1:
            mixed = [embed(*chunks[0])]
        else:
            mixed = [checkpoint(embed, *chunk, use_reentrant=False) for chunk in chunks]
        embeddings = torch.cat(mixed)
        embeddings = embeddings.to(exact_dtype(embeddings))
        return F.normalize(embeddings, dim=1) if self.renormalize else embeddings


def _in_chunks(share: Callable[[slice], Share], count: int, size: int) -> Share:
    """The sum of shares of ``size`` anchors each; but one, all are recomputed in the backward."""
    slices = [slice(start, start + size) for start in range(0, count, size)]
    if len(slices) == 1:
        return share(slices[0])
    total = checkpoint(share, slices[0], use_reentrant=False)
    for some in slices[1:]:
        total = total + checkpoint(share, some, use_reentrant=False)
    return total


def _nothing(relation: Relation) -> Share:
    """The share of anchors without pairs: zero, with gradients of zero."""
    zero = relation.anchors.sum() * 0
    return Share(zero, zero, len(relation.anchors), torch.zeros((), device=zero.device))


def _several(value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _within(given: tuple[str, ...], allowed: object) -> bool:
    return bool(given) and all(name in allowed for name in given)  # type: ignore[operator]
