"""Losses between examples and proxies, one learnable vector per class: rows of Table 4.1."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.catalog import register
from mixplug.functional.pairwise import TABLE, Form, LogSum
from mixplug.losses.base import PairLoss
from mixplug.losses.relation import Relation

_HOSTS = ("timm", "mm", "torch")
VARIANTS = ("published", "thesis")


class ProxyLoss(PairLoss):
    """Base of losses that hold ``proxies`` (num_classes, dim), He-initialized.

    Args:
        form: τ, σ and ρ.
        num_classes: K, of the training set.
        dim: D, of the embedding.
        reduction: as in :class:`PairLoss`.
        normalize: whether embeddings and proxies are ℓ2-normalized first.
    """

    def __init__(
        self, form: Form, num_classes: int, dim: int, reduction: str, normalize: bool
    ) -> None:
        self.require(num_classes >= 2, "num_classes", num_classes, ">= 2")
        self.require(dim >= 1, "dim", dim, ">= 1")
        super().__init__(form, reduction, normalize)
        self.proxies = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")

    def prepare(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`MetricLoss`; every class needs a proxy, as wide as the embedding."""
        embeddings, labels = super().prepare(embeddings, labels)
        classes, dim = self.proxies.shape
        if embeddings.shape[1] != dim:
            raise ValueError(
                f"{self.name} has proxies of width dim={dim}, got embeddings of width "
                f"{embeddings.shape[1]}."
            )
        low, high = torch.stack(labels.aminmax()).tolist() if len(labels) else (0, 0)
        if low < 0 or high >= classes:
            raise ValueError(
                f"{self.name} has num_classes={classes} proxies, for the labels 0 to "
                f"{classes - 1}, got labels from {low} to {high}."
            )
        return embeddings, labels

    def points_of_classes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Proxies (K, D) and their classes (K,), in the precision of ``like``."""
        proxies = self.proxies.to(like.dtype)
        labels = torch.arange(len(proxies), device=proxies.device)
        return (F.normalize(proxies, dim=1) if self.normalize else proxies), labels

    def relation(self, embeddings: Tensor, labels: Tensor) -> Relation:
        """Who is anchor and who is point, of a prepared batch and all proxies."""
        return self.relate(embeddings, labels, *self.points_of_classes(embeddings))

    def relate(
        self, embeddings: Tensor, labels: Tensor, proxies: Tensor, classes: Tensor
    ) -> Relation:
        """Who is anchor and who is point.

        Args:
            embeddings: (B, D).
            labels: (B,).
            proxies: (K, D).
            classes: (K,), those of the proxies.
        """
        raise NotImplementedError


class ProxiesAreAnchors(ProxyLoss):
    """Base of losses whose anchors are proxies and whose points are examples."""

    def relate(
        self, embeddings: Tensor, labels: Tensor, proxies: Tensor, classes: Tensor
    ) -> Relation:
        """Anchors are proxies, points are examples."""
        return Relation(proxies, classes, embeddings, labels, itself=False)


class ExamplesAreAnchors(ProxyLoss):
    """Base of losses whose anchors are examples and whose points are proxies."""

    mixes_points = False

    def relate(
        self, embeddings: Tensor, labels: Tensor, proxies: Tensor, classes: Tensor
    ) -> Relation:
        """Anchors are examples, points are proxies."""
        return Relation(embeddings, labels, proxies, classes, itself=False)


@register("ProxyAnchor", kind="loss", reference="Table 4.1, Kim 2020", hosts=_HOSTS)
class ProxyAnchor(ProxiesAreAnchors):
    r"""Proxies are anchors, examples their positives and negatives.

    As published (Kim et al. 2020), with P⁺ the proxies whose class is in the batch:

    .. math::
        \frac{1}{|P^+|} \sum_{a \in P^+} \log(1 + \sum_p e^{-\beta(s - m)})
        + \frac{1}{|P|} \sum_{a \in P} \log(1 + \sum_n e^{\gamma(s + m)})

    Args:
        num_classes: K, of the training set.
        dim: D, of the embedding.
        beta, gamma: scales of positives and negatives.
        margin: m.
        variant: 'published', or 'thesis', which is Table 4.1: multi-similarity's form (terms over
            β and γ, the margin the same in both), averaged over all proxies.
        reduction: 'sum' over an anchor's pairs as printed, or their 'mean'.
        normalize: whether embeddings and proxies are ℓ2-normalized first.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        beta: float = 32.0,
        gamma: float = 32.0,
        margin: float = 0.1,
        variant: str = "published",
        reduction: str = "sum",
        normalize: bool = True,
    ) -> None:
        self.require(variant in VARIANTS, "variant", variant, f"in {VARIANTS}")
        self.require(beta > 0, "beta", beta, "> 0")
        self.require(gamma > 0, "gamma", gamma, "> 0")
        published = Form(LogSum(-beta, margin), LogSum(gamma, -margin), separate_means=True)
        form = published if variant == "published" else TABLE["ProxyAnchor"](beta, gamma, margin)
        super().__init__(form, num_classes, dim, reduction, normalize)


@register("ProxyNCA", kind="loss", reference="Table 4.1, Movshovitz-Attias 2017", hosts=_HOSTS)
class ProxyNCA(ExamplesAreAnchors):
    r""":math:`-s(a, p) + \log \sum_n e^{s(a, n)}`, with p the proxy of the class and n all others.

    Args:
        num_classes: K, of the training set.
        dim: D, of the embedding.
        reduction: 'sum' over an anchor's pairs as printed, or their 'mean'.
        normalize: whether embeddings and proxies are ℓ2-normalized first.
    """

    def __init__(
        self, num_classes: int, dim: int, reduction: str = "sum", normalize: bool = True
    ) -> None:
        super().__init__(TABLE["ProxyNCA"](), num_classes, dim, reduction, normalize)


@register("ProxyNCAPlusPlus", kind="loss", reference="Table 4.1, Teh 2020", hosts=_HOSTS)
class ProxyNCAPlusPlus(ExamplesAreAnchors):
    r""":math:`-s(a, p) / T + \log \sum_n e^{s(a, n) / T}`, ProxyNCA with a temperature.

    Args:
        num_classes: K, of the training set.
        dim: D, of the embedding.
        temperature: T; 1/9 as its authors.
        reduction: 'sum' over an anchor's pairs as printed, or their 'mean'.
        normalize: whether embeddings and proxies are ℓ2-normalized first.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        temperature: float = 1 / 9,
        reduction: str = "sum",
        normalize: bool = True,
    ) -> None:
        self.require(temperature > 0, "temperature", temperature, "> 0")
        super().__init__(
            TABLE["ProxyNCAPlusPlus"](temperature), num_classes, dim, reduction, normalize
        )


def param_groups(
    modules: Iterable[nn.Module], lr: float, proxy_lr_mult: float = 100.0
) -> list[dict[str, object]]:
    """Optimizer groups in which proxies learn faster than the network, as is usual with them.

    ::

        torch.optim.AdamW(param_groups([model, loss], lr=1e-4), weight_decay=1e-4)

    Args:
        modules: the network and the loss; a module that holds both is given alone.
        lr: of everything but proxies.
        proxy_lr_mult: how many times faster proxies learn; 100 in Proxy Anchor.
    """
    holders = [m for module in modules for m in module.modules()]
    proxies = {id(m.proxies): m.proxies for m in holders if isinstance(m, ProxyLoss)}
    seen: dict[int, nn.Parameter] = {}
    for holder in holders:
        seen.update({id(p): p for p in holder.parameters(recurse=False)})
    rest = [p for key, p in seen.items() if key not in proxies]
    groups: list[dict[str, object]] = [{"params": rest, "lr": lr}]
    if proxies:
        groups.append({"params": list(proxies.values()), "lr": lr * proxy_lr_mult})
    return groups
