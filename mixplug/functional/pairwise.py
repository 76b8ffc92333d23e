"""The generic pair loss, clean and mixed (eqs. 4.3, 4.7 and 4.9), and the losses of Table 4.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.renamed import renamed_keys

Term = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Additive:
    r"""A term :math:`\sum_i w_i \rho(s_i)` with :math:`\rho(s) = c (s - m)`, or its positive part.

    Attributes:
        slope: c.
        margin: m.
        hinge: whether ρ is replaced by its positive part [ρ]₊.
    """

    slope: float
    margin: float = 0.0
    hinge: bool = False

    def __call__(self, s: Tensor, weight: Tensor) -> Tensor:
        """The term (...) of similarities s and weights w, both (..., V)."""
        rho = self.slope * (s - self.margin)
        return (weight * (rho.relu() if self.hinge else rho)).sum(-1)


@dataclass(frozen=True)
class LogSum:
    r"""A term :math:`a \log(o + \sum_i w_i e^{c (s_i - m)})`, computed in the log domain.

    If all weights are 0, the term is 0. For o = 0, this omits a term that would be −∞.

    Attributes:
        slope: c.
        margin: m.
        offset: o, 1 or 0.
        scale: a.
    """

    slope: float
    margin: float = 0.0
    offset: int = 1
    scale: float = 1.0

    def __call__(self, s: Tensor, weight: Tensor) -> Tensor:
        """The term (...) of similarities s and weights w, both (..., V)."""
        has_weight = weight > 0
        lowest = torch.finfo(s.dtype).min  # finite, so that rows without weight give no NaN
        log_weight = torch.where(has_weight, weight, 1).log()
        exponent = torch.where(has_weight, self.exponent(s) + log_weight, lowest)
        total = torch.logsumexp(exponent, -1)
        if self.offset:
            total = torch.logaddexp(total, torch.zeros_like(total))
        return self.scale * torch.where(has_weight.any(-1), total, 0)

    def exponent(self, s: Tensor) -> Tensor:
        """The exponent c (s − m), elementwise."""
        return self.slope * (s - self.margin)


@dataclass(frozen=True)
class SelfPaced(LogSum):
    r"""A :class:`LogSum` whose slope is c·α(s), with :math:`\alpha(s) = [\pm(s - t)]_+` [0].

    α is the distance of a similarity from its optimum t. For c > 0 only similarities above t count,
    for c < 0 only those below. α is detached.

    Attributes:
        optimum: t.

    - [0]: Circle Loss: A Unified Perspective of Pair Similarity Optimization, 2020,
      https://arxiv.org/abs/2002.10857
    """

    optimum: float = 0.0

    def exponent(self, s: Tensor) -> Tensor:
        """The exponent c α(s) (s − m), elementwise."""
        distance = s.detach() - self.optimum
        pace = (distance if self.slope > 0 else -distance).relu()
        return super().exponent(s) * pace


@renamed_keys(apart="separate_means")
@dataclass(frozen=True)
class Form:
    r"""The loss of one anchor, :math:`\tau(\text{positive} + \text{negative})` (Table 4.1).

    Attributes:
        positive: the positive term, σ⁺ of the sum of ρ⁺.
        negative: the negative term, σ⁻ of the sum of ρ⁻.
        hinge: whether τ is the positive part. Otherwise τ is the identity.
        separate_means: whether to average the positive term over the anchors that have positives,
            and the negative term over all anchors, as in the publication of Proxy Anchor.
            Otherwise the sum of both is averaged over all anchors (eq. 4.10).
        soft: whether τ is the softplus log(1 + eˣ).

    Raises:
        ValueError: more than one of ``hinge``, ``separate_means`` and ``soft`` is set.
    """

    positive: Term
    negative: Term
    hinge: bool = False
    separate_means: bool = False
    soft: bool = False

    def __post_init__(self) -> None:
        if (self.hinge or self.soft) and self.separate_means:
            raise ValueError(
                "A Form with separate_means=True has no sum of terms that τ could act on: use "
                "hinge=False and soft=False."
            )
        if self.hinge and self.soft:
            raise ValueError(
                "A Form needs hinge=True (τ is the positive part) or soft=True (τ is the "
                "softplus), got both."
            )

    def tau(self, x: Tensor) -> Tensor:
        """τ, elementwise."""
        if self.soft:
            return torch.logaddexp(x, torch.zeros_like(x))
        return x.relu() if self.hinge else x

    @property
    def cancels(self) -> bool:
        """Whether both terms have opposite gradients if they have the same pairs and weights."""
        p, n = self.positive, self.negative
        if not (isinstance(p, LogSum) and isinstance(n, LogSum)):
            return False
        summed = not (self.hinge or self.soft or self.separate_means)
        return summed and p.offset == n.offset == 0 and (p.slope, p.scale) == (n.slope, -n.scale)


def _two_sided(beta: float, gamma: float, margin: float, scaled: bool) -> Form:
    return Form(
        LogSum(-beta, margin, 1, 1 / beta if scaled else 1.0),
        LogSum(gamma, margin, 1, 1 / gamma if scaled else 1.0),
    )


def _ratio(temperature: float) -> Form:
    slope = 1 / temperature
    return Form(LogSum(slope, 0.0, 0, -1.0), LogSum(slope, 0.0, 0))


# Table 4.1. Its rows also differ in what anchors and positives/negatives are, examples or proxies;
# mixplug.losses defines that.
TABLE: dict[str, Callable[..., Form]] = {
    "Contrastive": lambda margin: Form(Additive(-1.0), Additive(1.0, margin, hinge=True)),
    "LiftedStructure": lambda margin: Form(
        LogSum(-1.0, 0.0, 0), LogSum(1.0, margin, 0), hinge=True
    ),
    "BinomialDeviance": lambda beta, gamma, margin: _two_sided(beta, gamma, margin, scaled=False),
    "MultiSimilarity": lambda beta, gamma, margin: _two_sided(beta, gamma, margin, scaled=True),
    "ProxyAnchor": lambda beta, gamma, margin: _two_sided(beta, gamma, margin, scaled=True),
    "NCA": lambda: _ratio(1.0),
    "ProxyNCA": lambda: _ratio(1.0),
    "ProxyNCAPlusPlus": lambda temperature: _ratio(temperature),
}


@dataclass(frozen=True)
class Share:
    """Partial sums of a loss over some anchors. Shares of disjoint sets of anchors can be added.

    Attributes:
        total: sum of the terms that are averaged over all anchors.
        positive: sum of the terms that are averaged over the anchors with positives.
        anchors: number of anchors, or the sum of their weights.
        with_positives: number of anchors with positives, or the sum of their weights.
    """

    total: Tensor
    positive: Tensor
    anchors: int | Tensor
    with_positives: Tensor

    def __add__(self, other: Share) -> Share:
        return Share(
            self.total + other.total,
            self.positive + other.positive,
            self.anchors + other.anchors,
            self.with_positives + other.with_positives,
        )

    def mean(self) -> Tensor:
        """The loss, averaged over anchors (eq. 4.10)."""
        with_positives = torch.where(self.with_positives > 0, self.with_positives, 1)
        return self.total / self.anchors + self.positive / with_positives


def pair_share(
    s: Tensor,
    positive: Tensor,
    negative: Tensor,
    form: Form,
    reduction: str = "sum",
    weight: Tensor | None = None,
) -> Share:
    r"""Generic loss over anchors, with binary labels (eq. 4.7) or interpolated ones (eq. 4.9).

    .. math::
        \ell(a) = \tau\Big(\sigma^+\big(\sum_v y_{av}\,\rho^+(s_{av})\big)
                         + \sigma^-\big(\sum_v (1 - y_{av})\,\rho^-(s_{av})\big)\Big)

    Args:
        s: similarities of A anchors to V points, (A, V).
        positive: weights y of the positive term, (A, V); 0 where there is no pair.
        negative: weights 1 − y of the negative term, (A, V); 0 where there is no pair.
        form: τ, σ and ρ.
        reduction: 'sum' takes the sum over v, as in the equation; 'mean' the weighted mean.
        weight: weights of the anchors in the mean over anchors, (A,). None is 1 for all.

    Returns:
        Sums of ℓ(a) over the anchors; their mean is ``share.mean()``.
    """
    with torch.autocast(s.device.type, enabled=False):
        s = s.to(exact_dtype(s))
        positive, negative = positive.to(s.dtype), negative.to(s.dtype)
        with_positives = positive.sum(-1) > 0
        anchors: int | Tensor = len(s)
        if reduction == "mean":
            positive, negative = _unit(positive), _unit(negative)
        pulled, pushed = form.positive(s, positive), form.negative(s, negative)
        total = pushed if form.separate_means else form.tau(pulled + pushed)
        if form.soft:  # log(1 + N/P) is 0 without negatives, and undefined without positives
            total = torch.where(with_positives & (negative.sum(-1) > 0), total, 0)
        if weight is not None:
            weight = weight.to(s.dtype)
            anchors, with_positives = weight.sum(), weight * with_positives
            total, pulled = weight * total, weight * pulled
        pulled_sum = pulled.sum() if form.separate_means else total.new_zeros(())
        return Share(total.sum(), pulled_sum, anchors, with_positives.sum())


def _unit(weight: Tensor) -> Tensor:
    """Weights scaled to sum 1; rows of zeros stay zero."""
    total = weight.sum(-1, keepdim=True)
    return weight / torch.where(total > 0, total, 1)
