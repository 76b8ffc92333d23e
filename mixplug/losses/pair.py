"""Losses between examples: the rows of Table 4.1 that have no proxies."""

from __future__ import annotations

from mixplug.catalog import register
from mixplug.functional.pairwise import TABLE
from mixplug.losses.base import PairLoss

_HOSTS = ("timm", "mm", "torch")


@register("Contrastive", kind="loss", reference="(4.1), Hadsell 2006", hosts=_HOSTS)
class Contrastive(PairLoss):
    r"""Contrastive loss: attracts positives, repels negatives above a margin.

    .. math:: \sum_p -s(a, p) + \sum_n [s(a, n) - m]_+ \quad (4.1)

    Args:
        margin: m, similarity up to which negatives are left alone.
        reduction: 'sum' over an anchor's pairs as printed, or their 'mean'.
        normalize: whether embeddings are ℓ2-normalized first.
    """

    def __init__(self, margin: float = 0.5, reduction: str = "sum", normalize: bool = True) -> None:
        super().__init__(TABLE["Contrastive"](margin), reduction, normalize)


@register("LiftedStructure", kind="loss", reference="Table 4.1, Hermans 2017", hosts=_HOSTS)
class LiftedStructure(PairLoss):
    r"""Lifted structure loss: a hinge on the log-sums over positives and negatives (Table 4.1).

    .. math:: \Big[\log \sum_p e^{-s(a, p)} + \log \sum_n e^{s(a, n) - m}\Big]_+

    Args:
        margin: m.
        reduction: 'sum' over an anchor's pairs as printed, or their 'mean'.
        normalize: whether embeddings are ℓ2-normalized first.
    """

    def __init__(self, margin: float = 1.0, reduction: str = "sum", normalize: bool = True) -> None:
        super().__init__(TABLE["LiftedStructure"](margin), reduction, normalize)


class _TwoSided(PairLoss):
    row: str

    def __init__(
        self, beta: float, gamma: float, margin: float, reduction: str, normalize: bool
    ) -> None:
        self.require(beta > 0, "beta", beta, "> 0")
        self.require(gamma > 0, "gamma", gamma, "> 0")
        super().__init__(TABLE[self.row](beta, gamma, margin), reduction, normalize)
        self.beta, self.gamma, self.margin = beta, gamma, margin


@register("BinomialDeviance", kind="loss", reference="Table 4.1, Yi 2014", hosts=_HOSTS)
class BinomialDeviance(_TwoSided):
    r"""Binomial deviance loss: soft hinges on the log-sums of both kinds of pairs (Table 4.1).

    .. math:: \log(1 + \sum_p e^{-\beta(s - m)}) + \log(1 + \sum_n e^{\gamma(s - m)})

    Args:
        beta, gamma: scales of positives and negatives.
        margin: m.
        reduction: 'sum' over an anchor's pairs as printed, or their 'mean'.
        normalize: whether embeddings are ℓ2-normalized first.
    """

    row = "BinomialDeviance"

    def __init__(
        self,
        beta: float = 2.0,
        gamma: float = 40.0,
        margin: float = 0.5,
        reduction: str = "sum",
        normalize: bool = True,
    ) -> None:
        super().__init__(beta, gamma, margin, reduction, normalize)


@register("MultiSimilarity", kind="loss", reference="(4.2), Wang 2019", hosts=_HOSTS)
class MultiSimilarity(_TwoSided):
    r"""Multi-similarity loss: binomial deviance with its terms divided by β and γ.

    .. math::
        \frac{1}{\beta} \log\Big(1 + \sum_p e^{-\beta(s(a, p) - m)}\Big)
        + \frac{1}{\gamma} \log\Big(1 + \sum_n e^{\gamma(s(a, n) - m)}\Big) \quad (4.2)

    Args:
        beta, gamma: scales of positives and negatives.
        margin: m.
        reduction: 'sum' over an anchor's pairs as printed, or their 'mean'.
        normalize: whether embeddings are ℓ2-normalized first.
    """

    row = "MultiSimilarity"

    def __init__(
        self,
        beta: float = 18.0,
        gamma: float = 75.0,
        margin: float = 0.77,
        reduction: str = "sum",
        normalize: bool = True,
    ) -> None:
        super().__init__(beta, gamma, margin, reduction, normalize)


@register("NCA", kind="loss", reference="Table 4.1, Goldberger 2005", hosts=_HOSTS)
class NCA(PairLoss):
    r"""Neighborhood component analysis: log-sums over positives and negatives (Table 4.1).

    .. math:: -\log \sum_p e^{s(a, p)} + \log \sum_n e^{s(a, n)}

    Args:
        reduction: 'sum' over an anchor's pairs as printed, or their 'mean'.
        normalize: whether embeddings are ℓ2-normalized first.
    """

    def __init__(self, reduction: str = "sum", normalize: bool = True) -> None:
        super().__init__(TABLE["NCA"](), reduction, normalize)
