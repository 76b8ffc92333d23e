"""Proxy losses (Table 4.1): pair losses between examples and one learnable proxy per class."""

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
_PML_LOSSES = "pytorch_metric_learning.losses"
_PML_PROXIES = ("proxies", "W", "fc", "weight")  # their names in its losses


class ProxyLoss(PairLoss):
    """Base of losses with a parameter ``proxies`` (num_classes, dim), initialized as by He.

    Args:
        form: functions τ, σ and ρ of the loss.
        num_classes: number K of training classes.
        dim: width D of the embeddings.
        reduction: 'sum' of the pairs of an anchor, as in eq. 4.3, or their 'mean'.
        normalize: whether to ℓ2-normalize embeddings and proxies first.
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
        """Check and convert a batch as :meth:`MetricLoss.prepare` does.

        Raises:
            ValueError: also if the embeddings are not as wide as the proxies, or a label has no
                proxy.
        """
        embeddings, labels = super().prepare(embeddings, labels)
        classes, dim = self.proxies.shape
        if embeddings.shape[1] != dim:
            raise ValueError(
                f"{self.name} needs embeddings of width dim={dim}, the width of its proxies, got "
                f"{embeddings.shape[1]}."
            )
        low, high = torch.stack(labels.aminmax()).tolist() if len(labels) else (0, 0)
        if low < 0 or high >= classes:
            raise ValueError(
                f"{self.name} with num_classes={classes} needs labels in 0 to {classes - 1}, got "
                f"labels from {low} to {high}."
            )
        return embeddings, labels

    def points_of_classes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Proxies (K, D) in the dtype of ``like``, normalized if needed, and their classes (K,)."""
        proxies = self.proxies.to(like.dtype)
        labels = torch.arange(len(proxies), device=proxies.device)
        return (F.normalize(proxies, dim=1) if self.normalize else proxies), labels

    def relation(self, embeddings: Tensor, labels: Tensor) -> Relation:
        """The anchors and points of a prepared batch and all proxies."""
        return self.relate(embeddings, labels, *self.points_of_classes(embeddings))

    def relate(
        self, embeddings: Tensor, labels: Tensor, proxies: Tensor, classes: Tensor
    ) -> Relation:
        """The anchors and points of examples and proxies.

        Args:
            embeddings: embeddings of the examples, (B, D).
            labels: classes of the examples, (B,).
            proxies: (K, D).
            classes: classes of the proxies, (K,).
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


@register("ProxyAnchor", kind="loss", reference="Kim 2020; thesis Table 4.1", hosts=_HOSTS)
class ProxyAnchor(ProxiesAreAnchors):
    r"""Proxy Anchor loss: proxies are anchors, examples are their positives and negatives.

    The published form (Kim et al. 2020), where P⁺ are the proxies whose class is in the batch:

    .. math::
        \frac{1}{|P^+|} \sum_{a \in P^+} \log(1 + \sum_p e^{-\beta(s - m)})
        + \frac{1}{|P|} \sum_{a \in P} \log(1 + \sum_n e^{\gamma(s + m)})

    Args:
        num_classes: number K of training classes.
        dim: width D of the embeddings.
        beta: scale β > 0 of the positives.
        gamma: scale γ > 0 of the negatives.
        margin: margin m of the similarity.
        variant: 'published' or 'thesis'. The latter is the form of Table 4.1, that of
            multi-similarity: terms are divided by β and γ, have the same margin, and are averaged
            over all proxies.
        reduction: 'sum' of the pairs of an anchor, as in the equation, or their 'mean'.
        normalize: whether to ℓ2-normalize embeddings and proxies first.
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


@register(
    "ProxyNCA", kind="loss", reference="Movshovitz-Attias 2017; thesis Table 4.1", hosts=_HOSTS
)
class ProxyNCA(ExamplesAreAnchors):
    r"""ProxyNCA loss (Table 4.1): an example is attracted by its proxy, and repelled by all others.

    .. math::
        -s(a, p) + \log \sum_n e^{s(a, n)}

    Here p is the proxy of the class of the example a, and n are all other proxies.

    Args:
        num_classes: number K of training classes.
        dim: width D of the embeddings.
        reduction: 'sum' of the pairs of an anchor, as in the equation, or their 'mean'.
        normalize: whether to ℓ2-normalize embeddings and proxies first.
    """

    def __init__(
        self, num_classes: int, dim: int, reduction: str = "sum", normalize: bool = True
    ) -> None:
        super().__init__(TABLE["ProxyNCA"](), num_classes, dim, reduction, normalize)


@register("ProxyNCAPlusPlus", kind="loss", reference="Teh 2020; thesis Table 4.1", hosts=_HOSTS)
class ProxyNCAPlusPlus(ExamplesAreAnchors):
    r"""ProxyNCA++ loss (Table 4.1): ProxyNCA with a temperature.

    .. math::
        -s(a, p) / T + \log \sum_n e^{s(a, n) / T}

    Args:
        num_classes: number K of training classes.
        dim: width D of the embeddings.
        temperature: T > 0; the default 1/9 is that of its authors.
        reduction: 'sum' of the pairs of an anchor, as in the equation, or their 'mean'.
        normalize: whether to ℓ2-normalize embeddings and proxies first.
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
    """Parameter groups for an optimizer, with a higher learning rate for proxies.

    ::

        torch.optim.AdamW(param_groups([model, loss], lr=1e-4), weight_decay=1e-4)

    Args:
        modules: the network and the loss, or one module that contains both.
        lr: learning rate of all parameters except proxies.
        proxy_lr_mult: learning rate of the proxies divided by ``lr``; 100 in Proxy Anchor.

    Proxies are those of this module, and the class weights of PyTorch Metric Learning's losses,
    such as ``proxies`` of its ProxyAnchorLoss, ``W`` of ArcFaceLoss and ``fc`` of SoftTripleLoss.

    Returns:
        One group, and a second one if there are proxies.
    """
    holders = [m for module in modules for m in module.modules()]
    proxies = {id(p): p for holder in holders for p in _proxies_of(holder)}
    seen: dict[int, nn.Parameter] = {}
    for holder in holders:
        seen.update({id(p): p for p in holder.parameters(recurse=False)})
    rest = [p for key, p in seen.items() if key not in proxies]
    groups: list[dict[str, object]] = [{"params": rest, "lr": lr}]
    if proxies:
        groups.append({"params": list(proxies.values()), "lr": lr * proxy_lr_mult})
    return groups


def _proxies_of(module: nn.Module) -> list[nn.Parameter]:
    """The proxies that a module itself holds."""
    if isinstance(module, ProxyLoss):
        return [module.proxies]
    if not any(cls.__module__.startswith(_PML_LOSSES) for cls in type(module).__mro__):
        return []
    named = dict(module.named_parameters(recurse=False))
    return [named[name] for name in _PML_PROXIES if name in named and named[name].dim() == 2]
