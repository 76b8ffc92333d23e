"""Scores of single-object tracking (Table 6.4b), as GOT-10k has them [0].

A sequence counts from its second frame on, since the box of the first is given, and only where the
object is there. Overlaps of a sequence are (T,), one per frame that counts; S sequences.

- [0]: GOT-10k: A Large High-Diversity Benchmark for Generic Object Tracking in the Wild, 2018,
  https://arxiv.org/abs/1810.11981
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def box_overlaps(a: Tensor, b: Tensor, bound: tuple[float, float] | None = None) -> Tensor:
    """Intersection over union of boxes, frame by frame.

    Args:
        a: (..., 4), left, top, width and height.
        b: likewise.
        bound: (width, height) of the image: parts outside of it do not count, in either.

    Returns:
        (...) in [0, 1]; 0 where both are without area.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape or a.shape[-1:] != (4,):
        raise ValueError(
            f"box_overlaps needs two times (..., 4), got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    (low_a, high_a), (low_b, high_b) = _corners(a, bound), _corners(b, bound)
    common = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    union = (high_a - low_a).prod(-1) + (high_b - low_b).prod(-1) - common
    return torch.where(union > 0, common / union.where(union > 0, torch.ones_like(union)), 0)


def sequence_overlaps(
    predicted: Tensor, truth: Tensor, there: Tensor, bound: tuple[float, float] | None = None
) -> Tensor:
    """Overlaps of the frames that count: all but the first, where the object is there.

    Args:
        predicted: (T, 4), with the given box first.
        truth: (T, 4).
        there: (T,) bool; GOT-10k's 'cover' above 0.
        bound: see :func:`box_overlaps`.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if predicted.shape != truth.shape or there.shape != truth.shape[:1]:
        raise ValueError(
            f"sequence_overlaps needs boxes (T, 4) twice and there (T,), got "
            f"{tuple(predicted.shape)}, {tuple(truth.shape)} and {tuple(there.shape)}."
        )
    return box_overlaps(predicted, truth, bound)[1:][there[1:]]


def average_overlap(overlaps: Sequence[Tensor]) -> float:
    """AO: the mean over the frames of all sequences at once, in [0, 1].

    So the official toolkit has it; a long sequence weighs more than a short one.

    Raises:
        ValueError: no frame counts.
    """
    return float(_all(overlaps).mean())


def success_rate(overlaps: Sequence[Tensor], threshold: float) -> float:
    """SR: the share of the frames of all sequences with an overlap above the threshold, in [0, 1].

    Raises:
        ValueError: no frame counts.
    """
    return float((_all(overlaps) > threshold).double().mean())


def class_balanced(values: Sequence[float], classes: Sequence[str]) -> float:
    """Mean over classes of the mean over their sequences, ``1/C sum_c 1/|S_c| sum_{i in S_c} v_i``.

    Of the average overlap of each sequence it is mAO, and of the success rate of each it is mSR.

    Args:
        values: one per sequence.
        classes: of the object of each.

    Raises:
        ValueError: no sequence, or not as many classes as values.
    """
    if len(values) != len(classes) or not values:
        raise ValueError(
            f"class_balanced needs a class for each of at least one value, got {len(values)} "
            f"values and {len(classes)} classes."
        )
    of_class: dict[str, list[float]] = {}
    for value, name in zip(values, classes, strict=True):
        of_class.setdefault(name, []).append(value)
    means = [sum(some) / len(some) for some in of_class.values()]
    return sum(means) / len(means)


def _all(overlaps: Sequence[Tensor]) -> Tensor:
    joined = torch.cat([part.double() for part in overlaps]) if overlaps else torch.empty(0)
    if not len(joined):
        raise ValueError("No frame counts: there is none but the first, or no object in any.")
    return joined


def _corners(boxes: Tensor, bound: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., :2] + boxes[..., 2:].clamp(min=0)
    if bound is None:
        return low, high
    limit = boxes.new_tensor(bound)
    return low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)
