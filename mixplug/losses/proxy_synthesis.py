"""Proxy Synthesis, a method that Metrix is compared with (Table 4.4): mixed classes as new ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.aligned import mix
from mixplug.losses.base import Source
from mixplug.losses.mixing import MixingLoss, local_generator
from mixplug.losses.mixing_pairs import draw_pairs, mixing_pairs
from mixplug.losses.proxies import ProxyLoss
from mixplug.losses.relation import Relation
from mixplug.sampling import Generators


@register(
    "ProxySynthesis", kind="loss", reference="Gu 2021; thesis 4.4.3", hosts=("timm", "mm", "torch")
)
class ProxySynthesis(MixingLoss):
    r"""Proxy Synthesis: a proxy loss with additional synthetic classes (§4.4.3).

    A synthetic class is made from examples i and j of different classes, with proxies p, and one
    λ ~ Beta(α, α) per iteration:

    .. math::
        \tilde x = \lambda x_i + (1 - \lambda) x_j, \qquad
        \tilde p = \lambda p_{y_i} + (1 - \lambda) p_{y_j}

    Both are ℓ2-normalized: x̃ is the only example of the new class, and p̃ is its proxy. μB such
    classes are added to the batch and to the proxies, and the loss is computed over all of them.
    Synthetic and clean embeddings are thus anchors, positives and negatives of each other. Labels
    are not interpolated.

    As in the original, α = 0.4, μ = 1, and one λ is used for all embeddings, proxies and pairs.
    Unlike its code, which pairs each example with the previous one and requires a sampler that puts
    different classes next to each other, j is drawn uniformly from the examples of other classes.

    Args:
        loss: a proxy loss, its config or its name.
        alpha: parameter α > 0 of λ ~ Beta(α, α).
        mu: number μ > 0 of synthetic examples per example of the batch. If μ is not an integer,
            the first examples of the batch have one more than the others.
        renormalize: whether to ℓ2-normalize synthetic embeddings and proxies.

    Raises:
        ValueError: the loss has no proxies, or a setting is not allowed.
    """

    loss: ProxyLoss

    def __init__(
        self,
        loss: ProxyLoss | Mapping[str, object] | str,
        alpha: float = 0.4,
        mu: float = 1.0,
        renormalize: bool = True,
    ) -> None:
        super().__init__(loss, renormalize)
        if not isinstance(self.loss, ProxyLoss):
            raise ValueError(
                f"ProxySynthesis needs a loss with proxies, such as ProxyAnchor or "
                f"ProxyNCAPlusPlus, got {self.loss.name}."
            )
        self.require(alpha > 0, "alpha", alpha, "> 0")
        self.require(mu > 0, "mu", mu, "> 0")
        self.alpha, self.mu = alpha, mu

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        features: Source | None = None,
        inputs: Source | None = None,
        generators: Generators | None = None,
    ) -> Tensor:
        """See :class:`MixingLoss`; only embeddings are mixed, maps and examples are not used."""
        normal, labels = self.loss.prepare(embeddings, labels)
        local = local_generator(generators, normal.device)
        lam = sampling.beta(self.alpha, 1, local).to(normal)
        examples = Relation.among(normal, labels)
        pairs = draw_pairs(mixing_pairs(examples, "anc-neg"), math.ceil(self.mu), local)
        index = pairs.mask.squeeze(1).mT.nonzero()[: round(self.mu * len(labels))]
        first, second = (
            t.squeeze(1).mT[index[:, 0], index[:, 1]] for t in (pairs.first, pairs.second)
        )
        return self._synthesized(normal, labels, first, second, lam)

    def synthesized(
        self, embeddings: Tensor, labels: Tensor, first: Tensor, second: Tensor, lam: float
    ) -> Tensor:
        """The loss with given synthetic classes.

        Args:
            embeddings: (B, D).
            labels: classes, (B,) integers.
            first: indices i of examples, (S,).
            second: indices j of examples of other classes, (S,).
            lam: λ in [0, 1], the weight of the first example.

        Raises:
            ValueError: λ is outside [0, 1], or the two examples of a pair have the same class.
        """
        self.require(0 <= lam <= 1, "lam", lam, "in [0, 1]")
        normal, labels = self.loss.prepare(embeddings, labels)
        differ = bool((labels[first] != labels[second]).all())
        self.require(differ, "second", second.tolist(), f"of other classes than {first.tolist()}")
        return self._synthesized(normal, labels, first, second, torch.tensor([lam]).to(normal))

    def _synthesized(
        self, embeddings: Tensor, labels: Tensor, first: Tensor, second: Tensor, lam: Tensor
    ) -> Tensor:
        proxies, classes = self.loss.points_of_classes(embeddings)
        new = len(classes) + torch.arange(len(first), device=labels.device)
        return self.loss.clean(
            self.loss.relate(
                torch.cat([embeddings, self._mix(embeddings, first, second, lam)]),
                torch.cat([labels, new]),
                torch.cat([proxies, self._mix(proxies, labels[first], labels[second], lam)]),
                torch.cat([classes, new]),
            )
        )

    def _mix(self, x: Tensor, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
        mixed = mix(x[first], x[second], lam.expand(len(first)))
        return F.normalize(mixed, dim=1) if self.renormalize else mixed
