"""Conversion of PyTorch Metric Learning (PML) losses to pair losses (eq. 4.3), for mixing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from mixplug.functional.pairwise import Additive, Form, LogSum, SelfPaced
from mixplug.losses.base import PairLoss
from mixplug.losses.building import converts
from mixplug.losses.pml import PML
from mixplug.losses.pml_wrappers import PACKAGE
from mixplug.losses.proxies import ExamplesAreAnchors, ProxiesAreAnchors, ProxyLoss


@dataclass(frozen=True)
class Scale:
    """A PML distance that is linear in the similarity s: its margin(d, m) is c · (level(m) − s).

    Attributes:
        slope: c.
        level: function from a margin m, in units of the distance, to a similarity.
        normalize: whether the distance normalizes embeddings.
    """

    slope: float
    level: Callable[[float], float]
    normalize: bool


def _scale(loss: Any) -> Scale:
    distance, name = loss.distance, type(loss.distance).__name__
    if name in ("CosineSimilarity", "DotProductSimilarity"):
        default = (distance.p, distance.power) == (2, 1)
        if default or (not distance.normalize_embeddings and distance.power == 1):
            return Scale(1.0, lambda m: m, distance.normalize_embeddings)
    euclidean = name == "LpDistance" and (distance.p, distance.power) == (2, 2)
    if euclidean and distance.normalize_embeddings:
        return Scale(2.0, lambda m: 1 - m / 2, True)  # |x - y|² = 2 - 2⟨x, y⟩
    raise ValueError(
        f"PML's {type(loss).__name__} uses the distance {name}(p={distance.p}, "
        f"power={distance.power}, normalize_embeddings={distance.normalize_embeddings}), but a "
        f"pair loss (eq. 4.3) must be a function of inner products. Use "
        f"distance=CosineSimilarity() with margins in units of similarity. DotProductSimilarity, "
        f"and LpDistance(power=2) of normalized embeddings, are also allowed."
    )


class _Converted(PairLoss):
    """A PML loss as a pair loss (eq. 4.3). Messages show the name of the PML loss."""

    title: str = "PML"

    @property
    def name(self) -> str:
        return self.title

    def extra_repr(self) -> str:
        return f"{self.title}, {self.form}"


class _ConvertedPairs(_Converted):
    @classmethod
    def of(cls, loss: Any, form: Form, reduction: str, normalize: bool) -> _Converted:
        return cls(form, reduction, normalize)


class _ConvertedProxies(_Converted, ProxyLoss):
    @classmethod
    def of(cls, loss: Any, form: Form, reduction: str, normalize: bool) -> _Converted:
        """Build the pair loss. It shares the proxy parameter of the PML loss."""
        classes, dim = loss.proxies.shape
        converted = cls(form, classes, dim, reduction, normalize)
        converted.proxies = loss.proxies
        return converted


class _ConvertedProxyAnchors(_ConvertedProxies, ProxiesAreAnchors):
    pass


class _ConvertedProxyPoints(_ConvertedProxies, ExamplesAreAnchors):
    pass


# Losses that mixplug 0.1 pickled name their classes so.
_TakenPairs, _TakenProxies = _ConvertedPairs, _ConvertedProxies
_TakenProxyAnchors, _TakenProxyPoints = _ConvertedProxyAnchors, _ConvertedProxyPoints


@dataclass(frozen=True)
class Row:
    """How to convert one PML loss to a pair loss (eq. 4.3).

    Attributes:
        form: function from the loss and its scale to τ, σ and ρ.
        target: class of the result.
        reducers: names of the PML reducers whose mean is that of eq. 4.10; the default of the PML
            loss comes first.
        reduction: 'sum' or 'mean' over the pairs of an anchor.
    """

    form: Callable[[Any, Scale], Form]
    target: type[_ConvertedPairs] | type[_ConvertedProxies] = _ConvertedPairs
    reducers: tuple[str, ...] = ("MeanReducer",)
    reduction: str = "sum"


def _circle(loss: Any, d: Scale) -> Form:
    return Form(
        SelfPaced(-loss.gamma, loss.delta_p, 0, optimum=loss.op),
        SelfPaced(loss.gamma, loss.delta_n, 0, optimum=loss.on),
        soft=True,
    )


def _contrastive(loss: Any, d: Scale) -> Form:
    return Form(
        Additive(-d.slope, d.level(loss.pos_margin), hinge=True),
        Additive(d.slope, d.level(loss.neg_margin), hinge=True),
    )


def _lifted(loss: Any, d: Scale) -> Form:
    return Form(
        LogSum(-d.slope, d.level(loss.pos_margin), 0),
        LogSum(d.slope, d.level(loss.neg_margin), 0),
        hinge=True,
    )


def _multi_similarity(loss: Any, d: Scale) -> Form:
    return Form(
        LogSum(-loss.alpha * d.slope, d.level(loss.base), 1, 1 / loss.alpha),
        LogSum(loss.beta * d.slope, d.level(loss.base), 1, 1 / loss.beta),
    )


def _nca(loss: Any, d: Scale) -> Form:
    # -log(P / (P + N)) = log(1 + exp(log N - log P)), with P and N the sums of Table 4.1
    slope = loss.softmax_scale * d.slope
    return Form(LogSum(slope, 0.0, 0, -1.0), LogSum(slope, 0.0, 0), soft=True)


def _proxy_anchor(loss: Any, d: Scale) -> Form:
    slope = loss.alpha * d.slope
    return Form(
        LogSum(-slope, d.level(loss.margin)),
        LogSum(slope, d.level(-loss.margin)),
        separate_means=True,
    )


# Losses that can be converted, with the exceptions that as_form documents.
ROWS: dict[str, Row] = {
    "CircleLoss": Row(_circle, reducers=("AvgNonZeroReducer", "MeanReducer")),
    "ContrastiveLoss": Row(
        _contrastive, reducers=("AvgNonZeroReducer", "MeanReducer"), reduction="mean"
    ),
    "GeneralizedLiftedStructureLoss": Row(_lifted),
    "MultiSimilarityLoss": Row(_multi_similarity),
    "NCALoss": Row(_nca),
    "ProxyAnchorLoss": Row(_proxy_anchor, _ConvertedProxyAnchors, ("DivisorReducer",)),
    "ProxyNCALoss": Row(_nca, _ConvertedProxyPoints),
}

_TRIPLETS = "it uses triplets, while a pair loss has separate sums over positives and negatives"
_EACH = (
    "it compares each positive with all negatives, while a pair loss has separate sums over "
    "positives and negatives"
)
_BOTH = "its negative term includes positives, while that of a pair loss has only negatives"
_WEIGHTS = "it is a classifier with one weight vector per class; use ProxyNCALoss instead"
_RANKS = "it is a function of ranks or histograms, not of sums over pairs"
_NEGATIVES = "it weights negatives relative to each other, not by a function of each similarity"
_BATCH = "it compares a pair with pairs of other anchors"
_NOISE = "it uses a ratio of variances, which is not a function of inner products"
_NO_NEGATIVES = "it has no negatives"
_NO_FORMULA = "it is a base class without a formula"
_WRAPS = "it wraps another loss; use the wrapped loss directly"
_REASONS = {
    _TRIPLETS: ("TripletMarginLoss", "MarginLoss", "AngularLoss"),
    _EACH: ("LiftedStructureLoss", "NTXentLoss", "NPairsLoss", "TupletMarginLoss"),
    _BOTH: ("SupConLoss",),
    _WEIGHTS: (
        "ArcFaceLoss", "CosFaceLoss", "InstanceLoss", "LargeMarginSoftmaxLoss",
        "NormalizedSoftmaxLoss", "P2SGradLoss", "SoftTripleLoss", "SphereFaceLoss",
        "SubCenterArcFaceLoss",
    ),
    _RANKS: ("FastAPLoss", "HistogramLoss", "PNPLoss", "SmoothAPLoss", "DynamicSoftMarginLoss"),
    _NEGATIVES: ("RankedListLoss",),
    _BATCH: ("IntraPairVarianceLoss", "ManifoldLoss", "ThresholdConsistentMarginLoss"),
    _NOISE: ("SignalToNoiseRatioContrastiveLoss",),
    _NO_NEGATIVES: ("VICRegLoss",),
    _NO_FORMULA: (
        "BaseLossWrapper", "BaseMetricLossFunction", "EmbeddingRegularizerMixin",
        "GenericPairLoss", "WeightRegularizerMixin",
    ),
    _WRAPS: ("CrossBatchMemory", "MultipleLosses", "SelfSupervisedLoss"),
}  # fmt: skip
WHY_NOT = {name: why for why, names in _REASONS.items() for name in names}


@converts
def as_form(loss: nn.Module) -> PairLoss | None:
    """Convert a PML loss to a pair loss (eq. 4.3) with the same value and the same proxies.

    Unlike in PML, a batch in which no anchor has a positive raises an error. The value differs from
    PML for three losses. The means of NCALoss and CircleLoss in PML exclude anchors without
    positives. ContrastiveLoss in PML is a mean over all pairs of the batch, here it is a mean over
    the pairs of an anchor and then over anchors. Both agree with MeanReducer if all anchors have
    the same number of positives and the same number of negatives. The default AvgNonZeroReducer
    of ContrastiveLoss has no counterpart; a warning says so.

    Args:
        loss: a PML loss, or :class:`PML` around one.

    Returns:
        The pair loss, or None if ``loss`` is not a PML loss.

    Raises:
        ValueError: the loss cannot be converted; the message gives the reason.
    """
    if isinstance(loss, PML):
        if loss.miner is not None:
            raise ValueError(
                f"PML's {type(loss.loss).__name__} cannot be mixed with the miner "
                f"{type(loss.miner).__name__}: miners select clean pairs, while the mixed loss "
                f"(eq. 4.9) uses all mixed pairs. Remove the miner. Metrix selects hard negatives "
                f"with hardest=k."
            )
        loss = loss.loss
    pml_class = next((c for c in type(loss).__mro__ if c.__module__.startswith(PACKAGE)), None)
    if pml_class is None:
        return None
    name = type(loss).__name__
    if pml_class is not type(loss):
        raise ValueError(
            f"{name} cannot be converted to a pair loss (eq. 4.3): it is a subclass of PML's "
            f"{pml_class.__name__} and may compute something else. Use {pml_class.__name__} itself."
        )
    if name not in ROWS:
        why = WHY_NOT.get(name, "it has no row in mixplug.losses.pml_forms.ROWS")
        raise ValueError(
            f"PML's {name} cannot be converted to a pair loss (eq. 4.3): {why}. Allowed are "
            f"{', '.join(ROWS)}."
        )
    row, scale = ROWS[name], _scale(loss)
    _check_options(loss, row)
    converted = row.target.of(loss, row.form(loss, scale), row.reduction, scale.normalize)
    converted.title = f"PML's {name}"
    return converted


def _check_options(loss: Any, row: Row) -> None:
    """Raise ValueError for options without counterpart, and warn if the mean is a different one."""
    for key in ("embedding_regularizer", "weight_regularizer"):
        if getattr(loss, key, None) is not None:
            raise ValueError(
                f"PML's {type(loss).__name__} has {key}={type(getattr(loss, key)).__name__}, but a "
                f"pair loss (eq. 4.3) has no regularizer. Set {key}=None."
            )
    reducers = getattr(loss.reducer, "reducers", {"loss": loss.reducer})
    for reducer in reducers.values():
        if type(reducer).__name__ not in row.reducers:
            raise ValueError(
                f"PML's {type(loss).__name__} has the reducer {type(reducer).__name__}, but pair "
                f"losses are averaged over anchors (eq. 4.10). Allowed: {', '.join(row.reducers)}."
            )
        if type(reducer).__name__ == "AvgNonZeroReducer" and row.reduction == "mean":
            warnings.warn(
                f"PML's {type(loss).__name__} with AvgNonZeroReducer averages over nonzero pairs. "
                f"Here it is averaged over all pairs of an anchor, then over anchors, as with "
                f"reducer=MeanReducer().",
                stacklevel=6,
            )
            return
