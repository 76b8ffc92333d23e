"""i-Mix as a comparator of Metrix (Table 4.4): mixed anchors with mixed virtual labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.similarity import mixed_similarity
from mixplug.losses.base import PairLoss, Source
from mixplug.losses.mixing import (
    LEVELS,
    MixingLoss,
    embed_mixed,
    hardest_by_level,
    linear,
    local_draws,
    source_at,
)
from mixplug.losses.mixing_pairs import mixing_pairs
from mixplug.losses.proxies import ProxiesAreAnchors
from mixplug.losses.relation import Relation, inner
from mixplug.sampling import Generators


@register("IMix", kind="loss", reference="4.4.3, Lee 2021", hosts=("timm", "mm", "torch"))
class IMix(MixingLoss):
    r"""Clean loss and that of mixed anchors, each against the clean examples of both its labels.

    .. math::
        \frac{c}{|X|} \sum_a \ell(a) + \frac{w}{|V|} \sum_{v \in V}
        \lambda\,\ell(v; P(a), N(a)) + (1 - \lambda)\,\ell(v; P(n), N(n))

    V are mixtures v of an example a and an example n of another class, λ weighing a: the 'anc-neg'
    pairs of section 4.4.3, one v and one λ ~ Beta(α, α) for two examples that are mixed. Positives
    and negatives are clean. P(a) has not a, but N(a) has n, and N(n) has a: as in the original,
    where the class of an example is the example itself.

    From section 4.4.3, and unlike the original: pairs are of different classes (there a random
    permutation, and λ or 1 − λ, whichever is larger), and their number is that of Metrix at the
    same level. Not from it: the clean loss stays and w = 0.4, so that all else is as with Metrix
    (4.10); the original is ``clean=0, w=1``. α = 1 as in the original.

    Args:
        loss: a loss of form (4.3) whose anchors are examples, its config or its name.
        level: what is mixed: 'input', 'feature' or 'embed'.
        alpha: α > 0.
        w: weight of the mixed loss, >= 0.
        clean: c, weight of the clean loss, >= 0.
        hardest: k, how many of the nearest negatives of an example are mixed with it; a number, or
            a dict of numbers by level. None is 3 for 'input' and all for the others.
        renormalize: whether mixed embeddings are ℓ2-normalized again, where the loss normalizes.

    Raises:
        ValueError: a loss that is not of form (4.3), or whose anchors are proxies, or a setting
            that is not allowed.
    """

    def __init__(
        self,
        loss: PairLoss | Mapping[str, object] | str,
        level: str = "input",
        alpha: float = 1.0,
        w: float = 0.4,
        clean: float = 1.0,
        hardest: int | Mapping[str, int] | None = None,
        renormalize: bool = True,
    ) -> None:
        super().__init__(loss, renormalize)
        if isinstance(self.loss, ProxiesAreAnchors):
            raise ValueError(
                f"IMix mixes anchors, and those of {self.loss.name} are proxies, of no class that "
                f"could be mixed with an example's. Use a loss whose anchors are examples."
            )
        self.require(level in LEVELS, "level", level, f"in {LEVELS}")
        self.require(alpha > 0, "alpha", alpha, "> 0")
        self.require(w >= 0, "w", w, ">= 0")
        self.require(clean >= 0, "clean", clean, ">= 0")
        self.hardest = hardest_by_level(hardest, self.name)
        self.level, self.alpha = level, alpha
        self.w, self.weight_of_clean = w, clean

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        features: Source | None = None,
        inputs: Source | None = None,
        generators: Generators | None = None,
    ) -> Tensor:
        """See :class:`MixingLoss`."""
        normal, labels = self.loss.prepare(embeddings, labels)
        relation = self.loss.relation(normal, labels)
        clean = self.weight_of_clean * self.loss.clean(relation)
        if not self.w:
            return clean
        source = source_at(self.level, inputs, features, len(labels), self.name)
        first, second = self._pairs(normal, labels, self.level if source else "embed")
        lam = sampling.beta(self.alpha, len(first), local_draws(generators, normal.device))
        return clean + self.w * self._mixed(relation, normal, first, second, lam, source)

    def mixed(self, embeddings: Tensor, labels: Tensor, lam: Tensor | float) -> Tensor:
        """The mixed loss at level 'embed', averaged over mixed anchors; nothing is drawn.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.
            lam: λ in [0, 1], the weight of the first of a pair: a number, or (B, B) indexed [first,
                second], of which what is above the diagonal counts.

        Raises:
            ValueError: λ outside [0, 1], see :class:`MetricLoss`.
        """
        given = torch.as_tensor(lam)
        self.require(bool(((given >= 0) & (given <= 1)).all()), "lam", lam, "in [0, 1]")
        normal, labels = self.loss.prepare(embeddings, labels)
        first, second = self._pairs(normal, labels, "embed")
        weight = given.to(first.device)
        weight = weight[first, second] if given.dim() else weight.expand(len(first))
        relation = self.loss.relation(normal, labels)
        return self._mixed(relation, normal, first, second, weight, None)

    def _pairs(self, embeddings: Tensor, labels: Tensor, level: str) -> tuple[Tensor, Tensor]:
        """Indices (V,) of examples of different classes that are mixed, the lower first."""
        examples = Relation.among(embeddings, labels)
        return mixing_pairs(examples, "anc-neg", self.hardest.get(level)).distinct()[:2]

    def _mixed(
        self,
        relation: Relation,
        embeddings: Tensor,
        first: Tensor,
        second: Tensor,
        lam: Tensor,
        source: Source | None,
    ) -> Tensor:
        """The loss of mixed anchors, averaged over them."""
        if not len(first):
            return embeddings.sum() * 0
        lam = lam.to(embeddings)
        raw = embeddings if source is None else linear(source, self.renormalize)
        if raw is not None:
            s = _to_mixed(raw, relation.points, first, second, lam, self.renormalize)
        elif source is not None:
            s = inner(embed_mixed(source, first, second, lam, self.renormalize), relation.points)
        positive, negative = relation.positive(), relation.negative()
        share = self.loss.share(s, positive[first], negative[first], lam)
        return (share + self.loss.share(s, positive[second], negative[second], 1 - lam)).mean()


def _to_mixed(
    embeddings: Tensor,
    points: Tensor,
    first: Tensor,
    second: Tensor,
    lam: Tensor,
    renormalize: bool,
) -> Tensor:
    """Similarities (V, P) of mixed embeddings to points, from inner products."""
    to_points, square = inner(embeddings, points), embeddings.square().sum(1)
    return mixed_similarity(
        to_points[first],
        to_points[second],
        square[first, None],
        square[second, None],
        inner(embeddings, embeddings)[first, second, None],
        lam[:, None],
        renormalize,
    )
