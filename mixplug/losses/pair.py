"""Pair losses between examples: the losses of Table 4.1 without proxies."""

from __future__ import annotations

from mixplug.catalog import register
from mixplug.functional.pairwise import TABLE
from mixplug.losses.base import PairLoss

_HOSTS = ("timm", "mm", "torch")


@register("Contrastive", kind="loss", reference="Hadsell 2006; thesis (4.1)", hosts=_HOSTS)
class Contrastive(PairLoss):
    r"""Contrastive loss (eq. 4.1): attracts positives, repels negatives above a margin.

    .. math::
        \sum_p -s(a, p) + \sum_n [s(a, n) - m]_+

    Args:
        margin: margin m; negatives with a similarity up to m add no loss.
        reduction: 'sum' of the pairs of an anchor, as in the equation, or their 'mean'.
        normalize: whether to ℓ2-normalize embeddings first.
    """

    def __init__(self, margin: float = 0.5, reduction: str = "sum", normalize: bool = True) -> None:
        super().__init__(TABLE["Contrastive"](margin), reduction, normalize)


@register("LiftedStructure", kind="loss", reference="Hermans 2017; thesis Table 4.1", hosts=_HOSTS)
class LiftedStructure(PairLoss):
    r"""Lifted structure loss (Table 4.1): a hinge on the log-sums over positives and negatives.

    .. math::
        \Big[\log \sum_p e^{-s(a, p)} + \log \sum_n e^{s(a, n) - m}\Big]_+

    Args:
        margin: margin m of the similarity.
        reduction: 'sum' of the pairs of an anchor, as in the equation, or their 'mean'.
        normalize: whether to ℓ2-normalize embeddings first.
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


@register("BinomialDeviance", kind="loss", reference="Yi 2014; thesis Table 4.1", hosts=_HOSTS)
class BinomialDeviance(_TwoSided):
    r"""Binomial deviance loss (Table 4.1): soft hinges on the sums over positives and negatives.

    .. math::
        \log\Big(1 + \sum_p e^{-\beta(s(a, p) - m)}\Big)
        + \log\Big(1 + \sum_n e^{\gamma(s(a, n) - m)}\Big)

    Args:
        beta: scale β > 0 of the positives.
        gamma: scale γ > 0 of the negatives.
        margin: margin m of the similarity.
        reduction: 'sum' of the pairs of an anchor, as in the equation, or their 'mean'.
        normalize: whether to ℓ2-normalize embeddings first.
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


@register("MultiSimilarity", kind="loss", reference="Wang 2019; thesis (4.2)", hosts=_HOSTS)
class MultiSimilarity(_TwoSided):
    r"""Multi-similarity loss (eq. 4.2): binomial deviance with terms divided by β and γ.

    .. math::
        \frac{1}{\beta} \log\Big(1 + \sum_p e^{-\beta(s(a, p) - m)}\Big)
        + \frac{1}{\gamma} \log\Big(1 + \sum_n e^{\gamma(s(a, n) - m)}\Big)

    Args:
        beta: scale β > 0 of the positives.
        gamma: scale γ > 0 of the negatives.
        margin: margin m of the similarity.
        reduction: 'sum' of the pairs of an anchor, as in the equation, or their 'mean'.
        normalize: whether to ℓ2-normalize embeddings first.
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


@register("NCA", kind="loss", reference="Goldberger 2005; thesis Table 4.1", hosts=_HOSTS)
class NCA(PairLoss):
    r"""Neighborhood components analysis, NCA (Table 4.1): log-sums over positives and negatives.

    .. math::
        -\log \sum_p e^{s(a, p)} + \log \sum_n e^{s(a, n)}

    Args:
        reduction: 'sum' of the pairs of an anchor, as in the equation, or their 'mean'.
        normalize: whether to ℓ2-normalize embeddings first.
    """

    def __init__(self, reduction: str = "sum", normalize: bool = True) -> None:
        super().__init__(TABLE["NCA"](), reduction, normalize)
