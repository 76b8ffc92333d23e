"""Soft targets and the cross-entropy that takes them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype


def soft_targets(y: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Targets of any kind as rows over classes.

    Args:
        y: class indices (...,), integer; or rows (..., K) of floats, soft or multi-label.
        num_classes: K, the width of the classifier.
        dtype: of the result.

    Returns:
        (..., K): one-hot rows for indices, else ``y`` itself in ``dtype``.

    Raises:
        ValueError: an index outside [0, K), or rows of another width. Indices are looked at on
            the CPU only, elsewhere the look would wait for the device.
    """
    if y.dtype.is_floating_point:
        if y.dim() == 0 or y.shape[-1] != num_classes:
            raise ValueError(
                f"Soft targets need one column per class: got shape {tuple(y.shape)} for "
                f"{num_classes} classes. Class indices must be integers, got {y.dtype}."
            )
        return y.to(dtype)
    y = y.long()
    if y.device.type == "cpu" and y.numel() and (int(y.min()) < 0 or int(y.max()) >= num_classes):
        wrong = int(y.max()) if int(y.max()) >= num_classes else int(y.min())
        raise ValueError(
            f"Class index {wrong} is outside the classifier's {num_classes} classes, "
            f"allowed are 0 to {num_classes - 1}."
        )
    return F.one_hot(y, num_classes).to(dtype)


def smooth(target: Tensor, smoothing: float) -> Tensor:
    """Label smoothing of soft rows: ``(1 - s) y + s / K``, with s = ``smoothing``.

    It commutes with mixing, since weights that mix sum to 1.

    Raises:
        ValueError: smoothing outside [0, 1).
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"Label smoothing must be in [0, 1), got {smoothing}.")
    return target * (1 - smoothing) + smoothing / target.shape[-1] if smoothing else target


def soft_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Cross-entropy with soft targets: mean over terms, or the weighted mean (5.1), (5.14).

        H(Y, P; s) = - sum_i s_i sum_k y_ik log p_ik / sum_i s_i

    Args:
        logits: (..., K), any layout of the leading terms.
        target: (..., K) rows over classes.
        weight: s, (...) without classes, >= 0; None weighs all terms alike. If its sum is zero
            the loss is zero, not NaN.

    Returns:
        Scalar in float32, or float64 if given.

    Raises:
        ValueError: shapes do not fit.
    """
    if logits.shape != target.shape:
        raise ValueError(f"Logits {tuple(logits.shape)} and target {tuple(target.shape)} differ.")
    dtype = exact_dtype(logits)
    with torch.autocast(logits.device.type, enabled=False):
        terms = -(target.to(dtype) * F.log_softmax(logits.to(dtype), -1)).sum(-1)
        if weight is None:
            return terms.mean()
        if weight.shape != terms.shape:
            raise ValueError(
                f"weight needs the shape {tuple(terms.shape)} of the terms, got "
                f"{tuple(weight.shape)}."
            )
        weight = weight.to(dtype)
        return (terms * weight).sum() / weight.sum().clamp(min=torch.finfo(dtype).tiny)
