"""Proxy Synthesis as a comparator of Metrix (Table 4.4): mixtures of classes as new classes."""

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
from mixplug.losses.mixing import MixingLoss, local_draws
from mixplug.losses.mixing_pairs import drawn, mixing_pairs
from mixplug.losses.proxies import ProxyLoss
from mixplug.losses.relation import Relation
from mixplug.sampling import Generators


@register("ProxySynthesis", kind="loss", reference="4.4.3, Gu 2021", hosts=("timm", "mm", "torch"))
class ProxySynthesis(MixingLoss):
    r"""A proxy loss over the batch and all proxies, and over synthetic ones beside them.

    Of examples i and j of different classes, with proxies p, and one λ ~ Beta(α, α) an iteration,

    .. math::
        \tilde x = \lambda x_i + (1 - \lambda) x_j, \qquad
        \tilde p = \lambda p_{y_i} + (1 - \lambda) p_{y_j}

    are ℓ2-normalized and are the one example and the proxy of a class of their own. All μB of them
    are appended to batch and proxies, and the loss is that of the larger batch: synthetic and clean
    ones are anchors, positives and negatives of each other, and labels are not interpolated.

    As the original and its code: α = 0.4, μ = 1, one λ for embeddings and proxies and all pairs.
    Unlike its code, which pairs an example with the one before it and relies on a sampler for their
    classes to differ, j is drawn uniformly from the examples of other classes.

    Args:
        loss: a proxy loss, its config or its name.
        alpha: α > 0.
        mu: μ > 0, how many synthetic examples there are for each in the batch; where it is no
            integer, the first of the batch have one more.
        renormalize: whether synthetic embeddings and proxies are ℓ2-normalized again.

    Raises:
        ValueError: a loss without proxies, or a setting that is not allowed.
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
                f"ProxyNCAPlusPlus, got {self.loss.name}, which has none to mix."
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
        local = local_draws(generators, normal.device)
        lam = sampling.beta(self.alpha, 1, local).to(normal)
        examples = Relation.among(normal, labels)
        pairs = drawn(mixing_pairs(examples, "anc-neg"), math.ceil(self.mu), local)
        place = pairs.there.squeeze(1).mT.nonzero()[: round(self.mu * len(labels))]
        first, second = (
            t.squeeze(1).mT[place[:, 0], place[:, 1]] for t in (pairs.first, pairs.second)
        )
        return self._synthesized(normal, labels, first, second, lam)

    def synthesized(
        self, embeddings: Tensor, labels: Tensor, first: Tensor, second: Tensor, lam: float
    ) -> Tensor:
        """The loss with given synthetic classes; nothing is drawn.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.
            first: indices (S,) of examples.
            second: indices (S,) of examples of other classes.
            lam: λ in [0, 1], the weight of the first.

        Raises:
            ValueError: λ outside [0, 1], or two examples of one class.
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
