"""Losses between a teacher and a student, and what is monitored of them (section 6.4).

Letters: V large views, S versions of each that the student sees, m small views, B frames, K head
outputs. Everything is computed in float32, or in float64 for float64 inputs, also under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.renamed import old_names, renamed_keys


@renamed_keys(centre="center")
def teacher_probabilities(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    """The teacher's centered and sharpened outputs, ``softmax((x - c) / τ)``, in (6.8) and (6.9).

    Args:
        logits: (..., K) of the teacher's head.
        center: c, (K,), the running mean of these logits.
        temperature: τ > 0, usually below the student's.

    Raises:
        ValueError: τ <= 0.
    """
    _require_temperature(temperature, "teacher_probabilities")
    dtype = exact_dtype(logits)
    with torch.autocast(logits.device.type, enabled=False):
        return ((logits.to(dtype) - center.to(dtype)) / temperature).softmax(-1)


def cross_entropy(target: Tensor, logits: Tensor, temperature: float = 0.1) -> Tensor:
    """``-<p, log softmax(x / τ)>`` per row, which is ``(Σp) logsumexp(x / τ) - <p, x / τ>``.

    Args:
        target: p, (..., K), without gradient. The loss is linear in it: a sum of targets gives the
            sum of their losses.
        logits: x, (..., K); leading dimensions broadcast.
        temperature: τ > 0.

    Returns:
        (...), without the dimension K.

    Raises:
        ValueError: τ <= 0, or targets and logits differ in K.
    """
    _require_temperature(temperature, "cross_entropy")
    if target.shape[-1] != logits.shape[-1]:
        raise ValueError(
            f"cross_entropy needs targets and logits with the same K, got {tuple(target.shape)} "
            f"and {tuple(logits.shape)}."
        )
    dtype = exact_dtype(logits)
    with torch.autocast(logits.device.type, enabled=False):
        scaled = logits.to(dtype) / temperature
        p = target.to(dtype)
        return p.sum(-1) * scaled.logsumexp(-1) - torch.linalg.vecdot(p, scaled)


def cross_view_loss(teacher: Tensor, student: Tensor, temperature: float = 0.1) -> Tensor:
    r"""The student's versions of a view against the teacher's other view, (6.8) with a minus.

        \sum_{u \ne v} \sum_i  -<p^u, log softmax(x^{v,i} / τ)>,   averaged over frames

    Args:
        teacher: p, (2, B, K), probabilities of both large views.
        student: x, (2, B, S, K), logits of S versions of each view: k masked ones in (6.8), the
            view itself in DINO, S = 1.
        temperature: the student's τ > 0.

    Returns:
        A scalar, the sum of 2 S terms.

    Raises:
        ValueError: shapes do not fit, or τ <= 0.
    """
    if student.dim() != 4 or student.shape[:2] != teacher.shape[:2] or len(teacher) != 2:
        raise ValueError(
            f"cross_view_loss needs teacher (2, B, K) and student (2, B, S, K), got "
            f"{tuple(teacher.shape)} and {tuple(student.shape)}."
        )
    terms = [cross_entropy(teacher[1 - v][:, None], student[v], temperature) for v in range(2)]
    return torch.stack([term.mean(0).sum() for term in terms]).sum()


def local_loss(teacher: Tensor, student: Tensor, temperature: float = 0.1) -> Tensor:
    r"""The student's small views against all of the teacher's views, (6.9) with a minus.

        \sum_v \sum_i  -<p^v, log softmax(x^i / τ)>,   averaged over frames

    Args:
        teacher: p, (V, B, K), probabilities of the large views.
        student: x, (m, B, K), logits of the small views.
        temperature: the student's τ > 0.

    Returns:
        A scalar, the sum of V m terms.

    Raises:
        ValueError: shapes do not fit, or τ <= 0.
    """
    if teacher.dim() != 3 or student.dim() != 3 or student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"local_loss needs teacher (V, B, K) and student (m, B, K), got "
            f"{tuple(teacher.shape)} and {tuple(student.shape)}."
        )
    return cross_entropy(teacher.sum(0), student, temperature).mean(1).sum()


def entropy(probabilities: Tensor) -> Tensor:
    """``H(p) = -<p, log p>`` per row: 0 if one output has probability 1, ln K if all are equal.

    Args:
        probabilities: p, (..., K).

    Returns:
        (...), in nats.
    """
    return torch.special.entr(probabilities.to(exact_dtype(probabilities))).sum(-1)


@renamed_keys(centre="center")
def updated_center(center: Tensor, mean: Tensor, decay: float = 0.9) -> Tensor:
    """``c <- decay c + (1 - decay) mean``: decay is the weight of the old value.

    Args:
        center: c, (K,).
        mean: of the teacher's logits over views, frames and processes, (K,).
        decay: in [0, 1].

    Raises:
        ValueError: decay outside [0, 1].
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"updated_center needs decay in [0, 1], got {decay}.")
    return decay * center + (1 - decay) * mean.to(center.dtype)


def _require_temperature(temperature: float, who: str) -> None:
    if not temperature > 0:
        raise ValueError(f"{who} needs temperature > 0, got {temperature}.")


__getattr__ = old_names(__name__)
