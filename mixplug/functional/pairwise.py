"""The generic pair loss, clean and mixed: (4.3), (4.7), (4.9), and Table 4.1 as eight rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype

Term = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Additive:
    r"""A term :math:`\sum_i w_i \rho(s_i)` with :math:`\rho(s) = c (s - m)`, or its positive part.

    Attributes:
        slope: c.
        margin: m.
        hinge: whether only the positive part counts.
    """

    slope: float
    margin: float = 0.0
    hinge: bool = False

    def __call__(self, s: Tensor, weight: Tensor) -> Tensor:
        """Similarities and weights (..., V) to the term (...)."""
        rho = self.slope * (s - self.margin)
        return (weight * (rho.relu() if self.hinge else rho)).sum(-1)


@dataclass(frozen=True)
class LogSum:
    r"""A term :math:`a \log(o + \sum_i w_i e^{c (s_i - m)})`, computed in the logarithm.

    Where no element has weight it is 0 also for o = 0: the term is then omitted, not −∞.

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
        """Similarities and weights (..., V) to the term (...)."""
        there = weight > 0
        lowest = torch.finfo(s.dtype).min  # finite, for rows without weight to have no NaN
        log_weight = torch.where(there, weight, 1).log()
        exponent = torch.where(there, self.exponent(s) + log_weight, lowest)
        total = torch.logsumexp(exponent, -1)
        if self.offset:
            total = torch.logaddexp(total, torch.zeros_like(total))
        return self.scale * torch.where(there.any(-1), total, 0)

    def exponent(self, s: Tensor) -> Tensor:
        """The exponent c (s − m), elementwise."""
        return self.slope * (s - self.margin)


@dataclass(frozen=True)
class SelfPaced(LogSum):
    r"""A :class:`LogSum` whose slope is c·α(s), with :math:`\alpha(s) = [\pm(s - t)]_+` [0].

    α is how far a similarity is from its optimum t, on the side where c pushes it down (sign of c),
    and has no gradient.

    Attributes:
        optimum: t.

    - [0]: Circle Loss: A Unified Perspective of Pair Similarity Optimization, 2020,
      https://arxiv.org/abs/2002.10857
    """

    optimum: float = 0.0

    def exponent(self, s: Tensor) -> Tensor:
        """The exponent c α(s) (s − m), elementwise."""
        away = s.detach() - self.optimum
        pace = (away if self.slope > 0 else -away).relu()
        return super().exponent(s) * pace


@dataclass(frozen=True)
class Form:
    r"""A loss of one anchor, :math:`\tau(\text{positive} + \text{negative})`: a row of Table 4.1.

    Attributes:
        positive: σ⁺ of the sum of ρ⁺.
        negative: σ⁻ of the sum of ρ⁻.
        hinge: whether τ is the positive part; else it is the identity.
        apart: average the terms apart, the positive one over anchors that have positives and the
            negative one over all, as Proxy Anchor was published; else (4.10), over all anchors.
        soft: whether τ is log(1 + eˣ), the hinge's smooth kin.
    """

    positive: Term
    negative: Term
    hinge: bool = False
    apart: bool = False
    soft: bool = False

    def __post_init__(self) -> None:
        if (self.hinge or self.soft) and self.apart:
            raise ValueError("Terms that are averaged apart have no sum for τ to act on.")
        if self.hinge and self.soft:
            raise ValueError("τ is the positive part or log(1 + eˣ), not both.")

    def tau(self, x: Tensor) -> Tensor:
        """τ, elementwise."""
        if self.soft:
            return torch.logaddexp(x, torch.zeros_like(x))
        return x.relu() if self.hinge else x

    @property
    def cancels(self) -> bool:
        """Whether terms over the same pairs with the same weights have opposite gradients."""
        p, n = self.positive, self.negative
        if not (isinstance(p, LogSum) and isinstance(n, LogSum)):
            return False
        summed = not (self.hinge or self.soft or self.apart)
        return summed and p.offset == n.offset == 0 and (p.slope, p.scale) == (n.slope, -n.scale)


def _two_sided(beta: float, gamma: float, margin: float, scaled: bool) -> Form:
    return Form(
        LogSum(-beta, margin, 1, 1 / beta if scaled else 1.0),
        LogSum(gamma, margin, 1, 1 / gamma if scaled else 1.0),
    )


def _ratio(temperature: float) -> Form:
    slope = 1 / temperature
    return Form(LogSum(slope, 0.0, 0, -1.0), LogSum(slope, 0.0, 0))


# Table 4.1. In what anchors and positives/negatives are (examples or proxies) rows differ too:
# that is the business of mixplug.losses.
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
    """What some anchors add to a loss, so that anchors can be taken in chunks.

    Attributes:
        total: sum over them of what is averaged over all anchors.
        positive: sum over them of what is averaged over anchors with positives.
        anchors, with_positives: how many there are, or the sum of their weights.
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
        """The loss, averaged over anchors (4.10)."""
        some = torch.where(self.with_positives > 0, self.with_positives, 1)
        return self.total / self.anchors + self.positive / some


def pair_share(
    s: Tensor,
    positive: Tensor,
    negative: Tensor,
    form: Form,
    reduction: str = "sum",
    weight: Tensor | None = None,
) -> Share:
    r"""The generic loss of anchors, (4.7) with binary labels and (4.9) with interpolated ones.

    .. math::
        \ell(a) = \tau\Big(\sigma^+\big(\sum_v y_{av}\,\rho^+(s_{av})\big)
                         + \sigma^-\big(\sum_v (1 - y_{av})\,\rho^-(s_{av})\big)\Big)

    Args:
        s: similarities (A, V) of A anchors.
        positive: weights y (A, V) of the positive term, 0 where there is no pair.
        negative: weights 1 − y (A, V) of the negative term, 0 where there is no pair.
        form: τ, σ, ρ.
        reduction: 'sum' over an anchor's pairs as printed, or their weighted 'mean'.
        weight: of anchors in the mean, (A,); None is 1 for each.
    """
    with torch.autocast(s.device.type, enabled=False):
        s = s.to(exact_dtype(s))
        positive, negative = positive.to(s.dtype), negative.to(s.dtype)
        some = positive.sum(-1) > 0
        anchors: int | Tensor = len(s)
        if reduction == "mean":
            positive, negative = _unit(positive), _unit(negative)
        pulled, pushed = form.positive(s, positive), form.negative(s, negative)
        total = pushed if form.apart else form.tau(pulled + pushed)
        if form.soft:  # log(1 + N/P) is 0 without negatives, and has no value without positives
            total = torch.where(some & (negative.sum(-1) > 0), total, 0)
        if weight is not None:
            weight = weight.to(s.dtype)
            anchors, some = weight.sum(), weight * some
            total, pulled = weight * total, weight * pulled
        alone = pulled.sum() if form.apart else total.new_zeros(())
        return Share(total.sum(), alone, anchors, some.sum())


def _unit(weight: Tensor) -> Tensor:
    """Weights that sum to one, or none at all."""
    total = weight.sum(-1, keepdim=True)
    return weight / torch.where(total > 0, total, 1)
