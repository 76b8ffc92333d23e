r"""Open-set recognition: classes that were trained on, and one name for all others (5.4.5).

Letters: N examples, T thresholds. An example is called unknown if its confidence, the largest
probability, is below a threshold, else by the class of that probability.
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
        correct: whether the class of the largest probability is the right one, (N,) bool; what
            stands there for unknown examples is not looked at.
        unknown: whether an example is of a class that was not trained on, (N,) bool.
        thresholds: t, (T,).

    Returns:
        (T,) each, fractions, float64; NaN where there is no such example.

    Raises:
        ValueError: shapes do not fit, or masks that are not bool.
    """
    if confidence.dim() != 1 or not confidence.shape == correct.shape == unknown.shape:
        raise ValueError(
            f"open_set_accuracy needs confidence, correct and unknown (N,), got "
            f"{tuple(confidence.shape)}, {tuple(correct.shape)} and {tuple(unknown.shape)}."
        )
    if correct.dtype != torch.bool or unknown.dtype != torch.bool:
        raise ValueError(
            f"open_set_accuracy needs correct and unknown of bool, got {correct.dtype} and "
            f"{unknown.dtype}."
        )
    if thresholds.dim() != 1:
        raise ValueError(f"open_set_accuracy needs thresholds (T,), got {tuple(thresholds.shape)}.")
    accepted = confidence >= thresholds[:, None]  # (T, N)
    known = (accepted & correct)[:, ~unknown].double().mean(1)
    return known, (~accepted)[:, unknown].double().mean(1)


def h_score(known: Tensor, unknown: Tensor) -> Tensor:
    r"""Harmonic mean of two accuracies, :math:`2 a_k a_u / (a_k + a_u)` [0]; 0 where both are 0.

    Args:
        known: accuracy of known examples, any shape.
        unknown: accuracy of unknown examples, the same shape.

    - [0]: On the Effectiveness of Image Rotation for Open Set Domain Adaptation, 2020,
      https://arxiv.org/abs/2007.12360
    """
    total = known + unknown
    return torch.where(total == 0, total, 2 * known * unknown / total.masked_fill(total == 0, 1))


def spread_thresholds(confidence: Tensor, count: int = 10) -> Tensor:
    r"""Thresholds :math:`c_\min + (c_\max - c_\min)\, i / (T - 1)`, among which [0] takes the best.

    The first rejects nothing. The best of them on the examples that are tested is a bound and no
    measurement: nobody knows it before.

    Args:
        confidence: (N,), N > 0.
        count: T > 1.

    Returns:
        (T,), increasing.

    Raises:
        ValueError: no example, or count < 2.

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
