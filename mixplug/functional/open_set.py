r"""Open-set recognition: classification into the training classes or 'unknown' (§5.4.5).

Letters: N examples, T thresholds. The confidence of an example is its largest class probability.
The prediction is 'unknown' if the confidence is below the threshold, and otherwise the class with
the largest probability.
"""

from __future__ import annotations

import torch
from torch import Tensor


def open_set_accuracy(
    confidence: Tensor, correct: Tensor, unknown: Tensor, thresholds: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Accuracy of known and of unknown examples at every threshold.

    .. math::

        a_k(t) = \mathrm{mean}_{i\ \mathrm{known}} [c_i \ge t \wedge \hat y_i = y_i],
        \quad a_u(t) = \mathrm{mean}_{i\ \mathrm{unknown}} [c_i < t]

    Args:
        confidence: c, (N,).
        correct: whether the class with the largest probability is the true class, (N,) bool.
            Ignored for unknown examples.
        unknown: whether the true class of the example is not a training class, (N,) bool.
        thresholds: t, (T,).

    Returns:
        Accuracies of known and of unknown examples, (T,) each, fractions, float64. An accuracy is
        NaN if there are no such examples.

    Raises:
        ValueError: shapes do not match, or a mask is not bool.
    """
    if confidence.dim() != 1 or not confidence.shape == correct.shape == unknown.shape:
        raise ValueError(
            f"open_set_accuracy needs confidence, correct and unknown (N,), got "
            f"{tuple(confidence.shape)}, {tuple(correct.shape)} and {tuple(unknown.shape)}."
        )
    if correct.dtype != torch.bool or unknown.dtype != torch.bool:
        raise ValueError(
            f"open_set_accuracy needs bool tensors correct and unknown, got {correct.dtype} and "
            f"{unknown.dtype}."
        )
    if thresholds.dim() != 1:
        raise ValueError(f"open_set_accuracy needs thresholds (T,), got {tuple(thresholds.shape)}.")
    accepted = confidence >= thresholds[:, None]  # (T, N)
    known = (accepted & correct)[:, ~unknown].double().mean(1)
    return known, (~accepted)[:, unknown].double().mean(1)


def h_score(known: Tensor, unknown: Tensor) -> Tensor:
    r"""H-score [0]: harmonic mean :math:`2 a_k a_u / (a_k + a_u)` of two accuracies.

    Args:
        known: accuracy :math:`a_k` of known examples, any shape.
        unknown: accuracy :math:`a_u` of unknown examples, same shape.

    Returns:
        Same shape; 0 where both accuracies are 0.

    - [0]: On the Effectiveness of Image Rotation for Open Set Domain Adaptation, 2020,
      https://arxiv.org/abs/2007.12360
    """
    total = known + unknown
    return torch.where(total == 0, total, 2 * known * unknown / total.masked_fill(total == 0, 1))


def spread_thresholds(confidence: Tensor, count: int = 10) -> Tensor:
    r"""Evenly spaced thresholds :math:`t_i = c_\min + (c_\max - c_\min)\, i / (T - 1)`.

    The first threshold rejects no example. [0] reports the accuracy at the best of the thresholds.
    This is an upper bound, since the best threshold on the test examples is not known in advance.

    Args:
        confidence: c, (N,), N > 0.
        count: T > 1.

    Returns:
        (T,), increasing.

    Raises:
        ValueError: no examples, or count < 2.

    - [0]: Open Domain Generalization with Domain-Augmented Meta-Learning, 2021,
      https://arxiv.org/abs/2104.03620
    """
    if confidence.dim() != 1 or not len(confidence) or count < 2:
        raise ValueError(
            f"spread_thresholds needs confidence (N,) with N > 0 and count >= 2, got "
            f"{tuple(confidence.shape)} and {count}."
        )
    low, high = confidence.aminmax()
    step = torch.arange(count, dtype=confidence.dtype, device=confidence.device) / (count - 1)
    return low + (high - low) * step
