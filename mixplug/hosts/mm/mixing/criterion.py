"""Cross-entropies of mm heads as one value per term."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixplug.criterion import Criterion, cross_entropy


@dataclass(frozen=True)
class Terms:
    """An mm loss as one value per term: the sum over classes, times the loss's own weight."""

    loss: nn.Module

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """(T, K) each to (T,)."""
        terms = self.loss(logits, target, reduction_override="none")
        return terms.sum(-1) if terms.dim() == 2 else terms


def softmax_criterion(loss: nn.Module) -> Criterion:
    """The criterion of a softmax CrossEntropyLoss of mmdet or mmseg."""
    if loss.class_weight is None:
        return cross_entropy(scale=loss.loss_weight)
    return Criterion(Terms(loss))


def total_weight(loss: nn.Module, labels: Tensor, weight: Tensor, ignore_index: int) -> Tensor:
    r"""Total weight of the pixels in mmseg's CrossEntropyLoss, ``\sum_i w_i / F``.

        L = loss_weight \sum_i w_i c_{y_i} H_i / F

    F is the loss's divisor. With class weights c it is their sum over labeled pixels. Without, it
    is the number of labeled pixels, or of all pixels if ``avg_non_ignore=False``. A total weight of
    1 is a plain mean.

    Args:
        loss: with reduction='mean'.
        labels: (B, H, W) class indices.
        weight: w, (B, H, W), 0 where a pixel is ignored.
        ignore_index: label of ignored pixels.

    Returns:
        A scalar.
    """
    known = labels != ignore_index
    if loss.class_weight is not None:
        factor = weight.new_tensor(loss.class_weight)[labels[known]].sum()
    else:
        factor = known.sum() if loss.avg_non_ignore else known.numel()
    return weight.sum() / (factor + torch.finfo(torch.float32).eps)  # as mmseg guards against 0


def unsupported_loss(loss: object, cross_entropy_loss: type) -> str | None:
    """Why the loss of a host cannot be mixed, or None if it can."""
    if getattr(type(loss), "forward", None) is not cross_entropy_loss.forward:
        return type(loss).__name__
    settings = {"use_sigmoid": False, "use_mask": False, "reduction": "mean", "ignore_index": None}
    for key, wanted in settings.items():
        value = getattr(loss, key, wanted)
        if value != wanted:
            return f"{type(loss).__name__} with {key}={value!r}"
    return None
