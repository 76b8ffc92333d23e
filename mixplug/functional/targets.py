"""Soft targets, label smoothing, and cross-entropy with soft targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype

IGNORED = -100  # PyTorch's label of examples that have no part in the loss


def soft_targets(y: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert class indices or soft targets to rows over classes.

    Args:
        y: integer class indices (...), or floating-point rows (..., K), soft or multi-label. The
            index -100 stands for an example without a label. For a single output (K = 1), y (B,)
            is the target of that output itself: 0 or 1, or any floating-point number.
        num_classes: K, the number of outputs of the classifier.
        dtype: dtype of the result.

    Returns:
        (..., K): one-hot rows for class indices, rows of 0 for -100, and ``y`` in ``dtype`` for
        rows.

    Raises:
        ValueError: an index is outside [0, K), or the rows do not have K columns. Indices on an
            accelerator are not checked, because that would synchronize.
    """
    if num_classes == 1 and y.dim() == 1:
        return _of_one_output(y, dtype)
    if y.dtype.is_floating_point:
        if y.dim() == 0 or y.shape[-1] != num_classes:
            raise ValueError(
                f"Soft targets need one column for each of the {num_classes} classes, got shape "
                f"{tuple(y.shape)} in {y.dtype}. Class indices need an integer dtype."
            )
        return y.to(dtype)
    y = y.long()
    ignored = y == IGNORED
    y = y.masked_fill(ignored, 0)
    if y.device.type == "cpu" and y.numel() and (int(y.min()) < 0 or int(y.max()) >= num_classes):
        wrong = int(y.max()) if int(y.max()) >= num_classes else int(y.min())
        raise ValueError(
            f"Class indices must be in 0 to {num_classes - 1} for a classifier with {num_classes} "
            f"classes, got {wrong}. If {wrong} marks examples to ignore, pass the mixer "
            f"ignore_index={wrong}, or {IGNORED} as their label."
        )
    return F.one_hot(y, num_classes).to(dtype).masked_fill(ignored[..., None], 0)


def _of_one_output(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Targets (B, 1) of a binary classifier with one logit, or of a regression."""
    if not y.dtype.is_floating_point:
        ignored = y == IGNORED
        y = y.masked_fill(ignored, 0)
        if y.device.type == "cpu" and bool(((y != 0) & (y != 1)).any()):
            raise ValueError(
                f"A classifier with one output has the classes 0 and 1, got a label "
                f"{int(y[(y != 0) & (y != 1)][0])}."
            )
    return y.to(dtype)[:, None]


def smooth(target: Tensor, smoothing: float) -> Tensor:
    """Label smoothing: ``(1 - s) y + s / K``, where s is ``smoothing`` and y is ``target``.

    Label smoothing and mixing commute, since mixing weights sum to 1.

    Args:
        target: target rows, (..., K).
        smoothing: s in [0, 1).

    Returns:
        Smoothed rows, (..., K).

    Raises:
        ValueError: smoothing outside [0, 1).
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"Label smoothing must be in [0, 1), got {smoothing}.")
    return target * (1 - smoothing) + smoothing / target.shape[-1] if smoothing else target


def soft_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Cross-entropy with soft targets: mean (eq. 5.1) or weighted mean (eq. 5.14) over terms.

        H(Y, P; s) = - sum_i s_i sum_k y_ik log p_ik / sum_i s_i

    Args:
        logits: logits of p, (..., K). There is one term i per element of the leading dimensions.
        target: target rows y, same shape.
        weight: weights s >= 0 of the terms, (...). None gives all terms the same weight. If the
            weights sum to 0, the loss is 0, not NaN.

    Returns:
        Scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: shapes do not match.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"soft_cross_entropy needs logits and target of the same shape, got "
            f"{tuple(logits.shape)} and {tuple(target.shape)}."
        )
    dtype = exact_dtype(logits)
    with torch.autocast(logits.device.type, enabled=False):
        terms = -(target.to(dtype) * F.log_softmax(logits.to(dtype), -1)).sum(-1)
        if weight is None:
            return terms.mean()
        if weight.shape != terms.shape:
            raise ValueError(
                f"soft_cross_entropy needs weight of shape {tuple(terms.shape)}, got "
                f"{tuple(weight.shape)}."
            )
        weight = weight.to(dtype)
        return (terms * weight).sum() / weight.sum().clamp(min=torch.finfo(dtype).tiny)
