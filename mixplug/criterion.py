"""The host's loss in the form that mixing needs: one value per term, for soft targets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.functional.targets import IGNORED

_ONE_CLASS = (
    "The cross-entropy of a classifier with one output is always 0, so nothing would be trained. "
    "For two classes with one logit use a binary loss, such as nn.BCEWithLogitsLoss."
)


@dataclass(frozen=True)
class Criterion:
    """A loss term by term.

    Attributes:
        terms: maps (logits (T, K), target (T, K)) to the loss of each of T terms, (T,); or to the
            scalar mean, if the host's loss gives nothing else.
        smoothing: label smoothing, which is applied to the soft target first.
        scale: factor of the loss.
        is_cross_entropy: whether the terms are plain cross-entropies, which
            :func:`mixplug.functional.hull_cross_entropy` computes faster.
        mass: maps target (T, K), before smoothing, to the part (T,) of each term in the divisor of
            the mean. It is used for targets that come from class indices. None is 1 for each.
        ignore_index: class index of examples that have no part in the loss.
    """

    terms: Callable[[Tensor, Tensor], Tensor]
    smoothing: float = 0.0
    scale: float = 1.0
    is_cross_entropy: bool = False
    mass: Callable[[Tensor], Tensor] | None = None
    ignore_index: int = IGNORED


def cross_entropy(
    smoothing: float = 0.0, scale: float = 1.0, ignore_index: int = IGNORED
) -> Criterion:
    """Soft cross-entropy, natural logarithm."""
    terms = _cross_entropy_terms
    return Criterion(terms, smoothing, scale, is_cross_entropy=True, ignore_index=ignore_index)


# Packages whose losses a host's adapter converts, which a loop of one's own need not have imported.
_HOMES = {"timm": "mixplug.hosts.timm.task"}
_known: dict[type, Callable[[Any], Criterion]] = {}


def register(cls: type) -> Callable[[Callable[[Any], Criterion]], Callable[[Any], Criterion]]:
    """Register how to convert a loss class; also used for subclasses with the same ``forward``."""

    def decorate(convert: Callable[[Any], Criterion]) -> Callable[[Any], Criterion]:
        _known[cls] = convert
        return convert

    return decorate


def as_criterion(loss: object = None) -> Criterion:
    """Convert a host's loss to a :class:`Criterion`.

    Known losses are converted to terms: PyTorch's in this module, a host's own in its adapter. Any
    other loss must be callable as ``loss(logits (T, K), target (T, K))`` with soft targets. It
    returns (T,), or the scalar mean; weighted terms (DenseMultiMix) need (T,). None means
    cross-entropy. For a loss that takes class indices use :func:`per_class`.

    Raises:
        ValueError: the loss is not callable, or its reduction is not the mean.
    """
    if isinstance(loss, Criterion):
        return loss
    if loss is None or loss is F.cross_entropy:
        return cross_entropy()
    home = _HOMES.get(type(loss).__module__.partition(".")[0])
    if home is not None:
        import_module(home)
    for cls in type(loss).__mro__:
        # a subclass with a forward of its own is another loss
        if cls in _known and getattr(type(loss), "forward", None) is getattr(cls, "forward", None):
            return _known[cls](loss)
    if not callable(loss):
        raise ValueError(f"A criterion must be callable as loss(logits, target), got {loss!r}.")
    if getattr(loss, "reduction", "mean") != "none":
        require_mean(loss)
    return Criterion(_OfRows(loss))


@dataclass(frozen=True)
class _OfRows:
    """A loss of which it is not known whether it takes rows of weights over classes."""

    loss: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        try:
            return self.loss(logits, target)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, IndexError, RuntimeError, TypeError) as error:
            why = f"{type(error).__name__}: {str(error).strip() or 'it does not take such targets'}"
            raise ValueError(_cannot_be_mixed(self.loss, why)) from error


def _cannot_be_mixed(loss: object, why: str) -> str:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return (
        f"{name} cannot be mixed. A mixed target is a row of weights over classes, and the loss "
        f"must give one value for each row of logits and target, but {why}. For a loss that takes "
        f"class indices use mixplug.criterion.per_class."
    )


@register(nn.CrossEntropyLoss)
def _(loss: nn.CrossEntropyLoss) -> Criterion:
    require_mean(loss)
    if loss.weight is None:
        return cross_entropy(loss.label_smoothing, ignore_index=loss.ignore_index)
    weight = loss.weight

    def terms(logits: Tensor, target: Tensor) -> Tensor:
        return -(target * weight.to(logits.dtype) * F.log_softmax(logits, -1)).sum(-1)

    def mass(target: Tensor) -> Tensor:
        # PyTorch divides by the sum of these for class indices, and by the number of rows for rows
        return target @ weight.to(target.dtype)

    return Criterion(terms, loss.label_smoothing, mass=mass, ignore_index=loss.ignore_index)


@register(nn.BCEWithLogitsLoss)
def _(loss: nn.BCEWithLogitsLoss) -> Criterion:
    require_mean(loss)
    if loss.weight is not None and loss.weight.dim() > 1:
        raise ValueError(
            f"BCEWithLogitsLoss has a weight of shape {tuple(loss.weight.shape)}, one for each "
            f"example. Mixed examples are others, so only a weight for each class can be used."
        )

    def terms(logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            logits, target, loss.weight, pos_weight=loss.pos_weight, reduction="none"
        ).mean(-1)

    return Criterion(terms)


@register(nn.MSELoss)
@register(nn.L1Loss)
@register(nn.SmoothL1Loss)
@register(nn.HuberLoss)
def _(loss: Any) -> Criterion:
    require_mean(loss)
    each = copy.copy(loss)
    each.reduction = "none"
    return Criterion(lambda logits, target: each(logits, target).mean(-1))


@register(nn.NLLLoss)
@register(nn.MultiMarginLoss)
@register(nn.MultiLabelMarginLoss)
def _(loss: Any) -> Criterion:
    raise ValueError(
        f"{type(loss).__name__} takes class indices, but mixed targets are rows over classes. Use "
        f"a loss for rows, or mixplug.criterion.per_class(loss) with reduction='none'."
    )


def require_rows(criterion: Criterion, classes: int, device: torch.device, name: str) -> None:
    """Try a loss on two mixed targets, before training.

    Args:
        criterion: what :func:`as_criterion` gives.
        classes: number K of outputs.
        device: of the logits.
        name: of the loss, for the message.

    Raises:
        ValueError: it does not take rows over classes, or does not return one value per term or
            their mean.
    """
    if criterion.is_cross_entropy and classes == 1:
        raise ValueError(_ONE_CLASS)
    logits = torch.linspace(-1, 1, 2 * classes, device=device).view(2, classes)
    target = torch.full_like(logits, 1 / classes)
    try:
        loss = criterion.terms
        with torch.no_grad():
            terms = (loss.loss if isinstance(loss, _OfRows) else loss)(logits, target)
        why = "" if terms.shape in ((2,), ()) else f"it returns a shape {tuple(terms.shape)}"
    except Exception as error:  # of whatever the loss does with what it does not expect
        why = f"{type(error).__name__}: {str(error).strip() or 'it does not take such targets'}"
    if why:
        raise ValueError(_cannot_be_mixed(name, why))


def per_class(loss: Callable[[Tensor, Tensor], Tensor]) -> Criterion:
    """Make a criterion for soft targets of a loss for class indices: ``sum_k y_k loss(logits, k)``.

    Args:
        loss: maps (logits (T, K), index (T,)) to (T,), that is, with ``reduction='none'``. It is
            called once for each class that has weight in the batch.
    """

    def terms(logits: Tensor, target: Tensor) -> Tensor:
        total = logits.new_zeros(len(logits))
        for k in target.sum(0).nonzero().flatten().tolist():
            rows = target[:, k].nonzero().flatten()
            index = torch.full_like(rows, k)
            total = total.index_add(0, rows, target[rows, k] * loss(logits[rows], index))
        return total

    return Criterion(terms)


def require_mean(loss: object) -> None:
    """Raise ValueError unless the loss averages over examples, as mixed losses do."""
    reduction = getattr(loss, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(
            f"Mixed losses are averaged over their terms, so {type(loss).__name__} needs "
            f"reduction='mean', got {reduction!r}."
        )


def _cross_entropy_terms(logits: Tensor, target: Tensor) -> Tensor:
    if logits.shape[-1] == 1:
        raise ValueError(_ONE_CLASS)
    return -(target * F.log_softmax(logits, -1)).sum(-1)
