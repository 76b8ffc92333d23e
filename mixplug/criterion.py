"""A host's loss as mixing needs it: one value per term, from logits and soft targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Criterion:
    """A loss term by term.

    Attributes:
        terms: (logits (T, K), target (T, K)) to the loss of each of T terms, (T,), or to the scalar
            mean if that is all the host's loss can give.
        smoothing: label smoothing, applied to the soft target beforehand.
        scale: factor of the loss.
        is_cross_entropy: the terms are plain cross-entropies, so the fused form of
            :func:`mixplug.functional.hull_cross_entropy` may stand in.
    """

    terms: Callable[[Tensor, Tensor], Tensor]
    smoothing: float = 0.0
    scale: float = 1.0
    is_cross_entropy: bool = False


def cross_entropy(smoothing: float = 0.0, scale: float = 1.0) -> Criterion:
    """Soft cross-entropy, natural logarithm."""
    return Criterion(_cross_entropy_terms, smoothing, scale, is_cross_entropy=True)


_known: dict[type, Callable[[Any], Criterion]] = {}


def register(cls: type) -> Callable[[Callable[[Any], Criterion]], Callable[[Any], Criterion]]:
    """Say how a host's loss is taken apart; for ``cls`` itself and subclasses that compute it."""

    def decorate(convert: Callable[[Any], Criterion]) -> Callable[[Any], Criterion]:
        _known[cls] = convert
        return convert

    return decorate


def as_criterion(loss: object = None) -> Criterion:
    """What mixing makes of a host's loss.

    Known losses are taken apart: PyTorch's here, a host's own in its adapter. Anything else must
    be callable as ``loss(logits (T, K), target (T, K))`` with soft targets, and return (T,), or the
    scalar mean, which will not do where terms are weighted (DenseMultiMix). None is the
    cross-entropy. A loss for class indices goes through :func:`per_class`.

    Raises:
        ValueError: the loss is not callable, or reduces by something else than the mean.
    """
    if isinstance(loss, Criterion):
        return loss
    if loss is None or loss is F.cross_entropy:
        return cross_entropy()
    for cls in type(loss).__mro__:
        # a subclass with a forward of its own is another loss
        if cls in _known and getattr(type(loss), "forward", None) is getattr(cls, "forward", None):
            return _known[cls](loss)
    if not callable(loss):
        raise ValueError(f"A criterion must be callable as loss(logits, target), got {loss!r}.")
    if getattr(loss, "reduction", "mean") != "none":
        require_mean(loss)
    return Criterion(loss)


@register(nn.CrossEntropyLoss)
def _(loss: nn.CrossEntropyLoss) -> Criterion:
    require_mean(loss)
    if loss.weight is None:
        return cross_entropy(loss.label_smoothing)
    weight = loss.weight

    def terms(logits: Tensor, target: Tensor) -> Tensor:
        # as PyTorch does for soft targets: the mean is over terms, not over the classes' weights
        return -(target * weight.to(logits.dtype) * F.log_softmax(logits, -1)).sum(-1)

    return Criterion(terms, loss.label_smoothing)


@register(nn.BCEWithLogitsLoss)
def _(loss: nn.BCEWithLogitsLoss) -> Criterion:
    require_mean(loss)

    def terms(logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            logits, target, loss.weight, pos_weight=loss.pos_weight, reduction="none"
        ).mean(-1)

    return Criterion(terms)


def per_class(loss: Callable[[Tensor, Tensor], Tensor]) -> Criterion:
    """A loss that knows only class indices, mixed over them: ``sum_k y_k loss(logits, k)``.

    Args:
        loss: ``loss(logits (T, K), index (T,))`` to (T,), so with ``reduction='none'``. It is
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
    """Raise ValueError unless the loss averages over examples, as mixing will."""
    reduction = getattr(loss, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(
            f"Mixed losses are averaged over their terms, so {type(loss).__name__} needs "
            f"reduction='mean', got {reduction!r}."
        )


def _cross_entropy_terms(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * F.log_softmax(logits, -1)).sum(-1)
