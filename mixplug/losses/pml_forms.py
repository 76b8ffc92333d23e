"""Which of PyTorch Metric Learning's losses are of form (4.3), so that they can be mixed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from mixplug.functional.pairwise import Additive, Form, LogSum, SelfPaced
from mixplug.losses.base import PairLoss
from mixplug.losses.building import converts
from mixplug.losses.pml import PACKAGE, PML
from mixplug.losses.proxies import ExamplesAreAnchors, ProxiesAreAnchors, ProxyLoss


@dataclass(frozen=True)
class Scale:
    """A distance of PML as a linear function of similarity: its margin(d, m) is c · (level(m) − s).

    Attributes:
        slope: c.
        level: of a margin m, in units of the distance, the similarity.
        normalize: whether it normalizes embeddings.
    """

    slope: float
    level: Callable[[float], float]
    normalize: bool


def _scale(loss: Any) -> Scale:
    distance, name = loss.distance, type(loss.distance).__name__
    if name in ("CosineSimilarity", "DotProductSimilarity"):
        as_it_is = (distance.p, distance.power) == (2, 1)
        if as_it_is or (not distance.normalize_embeddings and distance.power == 1):
            return Scale(1.0, lambda m: m, distance.normalize_embeddings)
    euclidean = name == "LpDistance" and (distance.p, distance.power) == (2, 2)
    if euclidean and distance.normalize_embeddings:
        return Scale(2.0, lambda m: 1 - m / 2, True)  # |x - y|² = 2 - 2⟨x, y⟩
    raise ValueError(
        f"PML's {type(loss).__name__} measures by {name}(p={distance.p}, power={distance.power}, "
        f"normalize_embeddings={distance.normalize_embeddings}), but a loss of form (4.3) is a "
        f"function of inner products. Give it distance=CosineSimilarity(), and its margins in "
        f"units of similarity; DotProductSimilarity and LpDistance(power=2) of normalized "
        f"embeddings will do too."
    )


class _Taken(PairLoss):
    """A loss of PML as a loss of form (4.3); messages have its name there."""

    title: str = "PML"

    @property
    def name(self) -> str:
        return self.title

    def extra_repr(self) -> str:
        return f"{self.title}, {self.form}"


class _TakenPairs(_Taken):
    @classmethod
    def of(cls, loss: Any, form: Form, reduction: str, normalize: bool) -> _Taken:
        return cls(form, reduction, normalize)


class _TakenProxies(_Taken, ProxyLoss):
    @classmethod
    def of(cls, loss: Any, form: Form, reduction: str, normalize: bool) -> _Taken:
        """Proxies are the very parameter that the loss of PML has."""
        classes, dim = loss.proxies.shape
        taken = cls(form, classes, dim, reduction, normalize)
        taken.proxies = loss.proxies
        return taken


class _TakenProxyAnchors(_TakenProxies, ProxiesAreAnchors):
    pass


class _TakenProxyPoints(_TakenProxies, ExamplesAreAnchors):
    pass


@dataclass(frozen=True)
class Row:
    """How a loss of PML is one of form (4.3).

    Attributes:
        form: from the loss and its scale to τ, σ and ρ.
        taken: what it becomes.
        reducers: of PML, those whose mean is (4.10), by name; the class's default comes first.
        reduction: over an anchor's pairs.
    """

    form: Callable[[Any, Scale], Form]
    taken: type[_TakenPairs] | type[_TakenProxies] = _TakenPairs
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


# Those that fit, but for what as_form says.
ROWS: dict[str, Row] = {
    "CircleLoss": Row(_circle, reducers=("AvgNonZeroReducer", "MeanReducer")),
    "ContrastiveLoss": Row(
        _contrastive, reducers=("AvgNonZeroReducer", "MeanReducer"), reduction="mean"
    ),
    "GeneralizedLiftedStructureLoss": Row(_lifted),
    "MultiSimilarityLoss": Row(_multi_similarity),
    "NCALoss": Row(_nca),
    "ProxyAnchorLoss": Row(_proxy_anchor, _TakenProxyAnchors, ("DivisorReducer",)),
    "ProxyNCALoss": Row(_nca, _TakenProxyPoints),
}

_TRIPLETS = "it operates on triplets, and (4.3) sums over positives and negatives apart"
_EACH = (
    "it sums over positives a function of each with all negatives, and (4.3) sums over both apart"
)
_BOTH = "the sum of its negative term is over positives too, and that of (4.3) over negatives alone"
_WEIGHTS = "it is a classifier with one weight vector per class; ProxyNCALoss is such a loss too"
_RANKS = "it is a function of ranks or of histograms, not of sums over pairs"
_NEGATIVES = "it weighs negatives by each other, and (4.3) is a function of their sum"
_BATCH = "it compares a pair with others of the batch, not with those of its anchor alone"
_NOISE = "it measures by a ratio of variances, which is no function of inner products"
_NO_NEGATIVES = "it has no negatives"
_NO_FORMULA = "it is a base class without a formula"
_WRAPS = "it wraps another loss, which is the one to give"
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
    """The loss of PML as a loss of form (4.3), with the same value; proxies stay the same object.

    A batch in which no anchor has a positive raises. Values differ for three losses. NCALoss and
    CircleLoss leave anchors without positives out of their mean. ContrastiveLoss averages over all
    pairs of a batch, here over the pairs of an anchor and then over anchors: equal with MeanReducer
    and as many positives, and as many negatives, for every anchor; its default, AvgNonZeroReducer,
    has no counterpart, which a warning says.

    Args:
        loss: of PML, or :class:`PML`; None is returned for any other.

    Raises:
        ValueError: a loss that is not of the form, with the reason.
    """
    if isinstance(loss, PML):
        if loss.miner is not None:
            raise ValueError(
                f"PML's {type(loss.loss).__name__} is to be mixed, but with a miner, "
                f"{type(loss.miner).__name__}: it chooses among clean pairs, and (4.9) is over all "
                f"mixed ones. Leave the miner out; Metrix has hardest=k."
            )
        loss = loss.loss
    theirs = next((c for c in type(loss).__mro__ if c.__module__.startswith(PACKAGE)), None)
    if theirs is None:
        return None
    name = type(loss).__name__
    if theirs is not type(loss):
        raise ValueError(f"{name} is made from PML's {theirs.__name__} and may compute otherwise.")
    if name not in ROWS:
        why = WHY_NOT.get(name, "it has no row in mixplug.losses.pml_forms.ROWS")
        raise ValueError(
            f"PML's {name} is no loss of form (4.3): {why}. These are: {', '.join(ROWS)}."
        )
    row, scale = ROWS[name], _scale(loss)
    _require_plain(loss, row)
    taken = row.taken.of(loss, row.form(loss, scale), row.reduction, scale.normalize)
    taken.title = f"PML's {name}"
    return taken


def _require_plain(loss: Any, row: Row) -> None:
    """Raise ValueError for what (4.3) has no place for, warn where the mean is another."""
    for key in ("embedding_regularizer", "weight_regularizer"):
        if getattr(loss, key, None) is not None:
            raise ValueError(
                f"PML's {type(loss).__name__} has {key}={type(getattr(loss, key)).__name__}, which "
                f"is no part of (4.3)."
            )
    several = getattr(loss.reducer, "reducers", {"loss": loss.reducer})
    for reducer in several.values():
        if type(reducer).__name__ not in row.reducers:
            raise ValueError(
                f"PML's {type(loss).__name__} has the reducer {type(reducer).__name__}, but losses "
                f"are averaged over anchors (4.10); allowed: {', '.join(row.reducers)}."
            )
        if type(reducer).__name__ == "AvgNonZeroReducer" and row.reduction == "mean":
            warnings.warn(
                f"PML's {type(loss).__name__} averages over pairs that are not zero, here it is "
                f"averaged over all pairs of an anchor, then over anchors, as with "
                f"reducer=MeanReducer().",
                stacklevel=6,
            )
            return
