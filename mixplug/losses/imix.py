"""i-Mix, a method that Metrix is compared with (Table 4.4): mixed anchors with mixed labels."""

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
    linear_embeddings,
    local_generator,
    source_at,
)
from mixplug.losses.mixing_pairs import mixing_pairs
from mixplug.losses.proxies import ProxiesAreAnchors
from mixplug.losses.relation import Relation, inner
from mixplug.sampling import Generators


@register("IMix", kind="loss", reference="Lee 2021; thesis 4.4.3", hosts=("timm", "mm", "torch"))
class IMix(MixingLoss):
    r"""i-Mix: the clean loss plus the loss of mixed anchors against clean examples (§4.4.3).

    .. math::
        \frac{c}{|X|} \sum_a \ell(a) + \frac{w}{|V|} \sum_{v \in V}
        \lambda\,\ell(v; P(a), N(a)) + (1 - \lambda)\,\ell(v; P(n), N(n))

    Each mixed anchor v in V mixes an example a, with weight λ, and an example n of another class.
    These are the 'anc-neg' pairs of §4.4.3, with one v and one λ ~ Beta(α, α) per unordered pair of
    examples. Positives and negatives are clean. P(a) excludes a, but N(a) includes n, and N(n)
    includes a. This agrees with the original, where every example is its own class.

    Differences to the original that follow §4.4.3: pairs have different classes, while the original
    pairs a batch with a random permutation and uses the larger of λ and 1 − λ; and the number of
    pairs is that of Metrix at the same level. Differences of our own: the clean loss remains and
    w = 0.4, so that the comparison with Metrix (eq. 4.10) is direct. ``clean=0, w=1`` gives the
    loss of the original. α = 1 as in the original.

    Args:
        loss: a pair loss (eq. 4.3) whose anchors are examples, its config or its name.
        level: what to mix: 'input', 'feature' or 'embed'.
        alpha: parameter α > 0 of λ ~ Beta(α, α).
        w: weight of the mixed loss, >= 0.
        clean: weight c of the clean loss, >= 0.
        hardest: number k of hardest negatives of an example to mix with it: a number, or a dict of
            numbers by level; or all, if it has fewer. None is 3 for 'input', and all negatives for
            the other levels.
        renormalize: whether to ℓ2-normalize mixed embeddings again, if the loss normalizes.

    Raises:
        ValueError: the loss is not a pair loss, its anchors are proxies, or a setting is not
            allowed.
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
                f"IMix needs a loss whose anchors are examples, but the anchors of "
                f"{self.loss.name} are proxies. IMix mixes anchors, and proxies cannot be mixed "
                f"with examples."
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
        if not self.w or self.loss.skipped:
            return clean
        source = source_at(self.level, inputs, features, len(labels), self.name)
        first, second = self._pairs(normal, labels, self.level if source else "embed")
        lam = sampling.beta(self.alpha, len(first), local_generator(generators, normal.device))
        return clean + self.w * self._mixed(relation, normal, first, second, lam, source)

    def mixed(self, embeddings: Tensor, labels: Tensor, lam: Tensor | float) -> Tensor:
        """The mixed loss at level 'embed', averaged over mixed anchors, for given λ.

        Args:
            embeddings: (B, D).
            labels: classes, (B,) integers.
            lam: λ in [0, 1], the weight of the example with the lower index: a number, or a tensor
                (B, B) indexed by [first, second]. Only entries above the diagonal are used.

        Raises:
            ValueError: λ is outside [0, 1], or see :class:`MetricLoss`.
        """
        values = torch.as_tensor(lam)
        self.require(bool(((values >= 0) & (values <= 1)).all()), "lam", lam, "in [0, 1]")
        normal, labels = self.loss.prepare(embeddings, labels)
        first, second = self._pairs(normal, labels, "embed")
        weight = values.to(first.device)
        weight = weight[first, second] if values.dim() else weight.expand(len(first))
        relation = self.loss.relation(normal, labels)
        return self._mixed(relation, normal, first, second, weight, None)

    def _pairs(self, embeddings: Tensor, labels: Tensor, level: str) -> tuple[Tensor, Tensor]:
        """Indices (V,) of pairs of examples of different classes, the lower index first."""
        examples = Relation.among(embeddings, labels)
        return mixing_pairs(examples, "anc-neg", self.hardest.get(level), fewer=True).distinct()[:2]

    def _mixed(
        self,
        relation: Relation,
        embeddings: Tensor,
        first: Tensor,
        second: Tensor,
        lam: Tensor,
        source: Source | None,
    ) -> Tensor:
        """The mean loss of the mixed anchors."""
        if not len(first):
            return embeddings.sum() * 0
        lam = lam.to(embeddings)
        raw = embeddings if source is None else linear_embeddings(source, self.renormalize)
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
    """Similarities (V, P) of mixed embeddings to points, computed from inner products."""
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
