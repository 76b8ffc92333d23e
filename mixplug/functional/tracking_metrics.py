"""Scores of single-object tracking (Table 6.4b), as defined by GOT-10k [0].

The first frame of a sequence is not evaluated, since its box is given. Frames without the object
are not evaluated either. Letters: T evaluated frames of a sequence, so its overlaps are (T,).

- [0]: GOT-10k: A Large High-Diversity Benchmark for Generic Object Tracking in the Wild, 2018,
  https://arxiv.org/abs/1810.11981
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixplug.renamed import renamed_keys


def box_overlaps(a: Tensor, b: Tensor, bound: tuple[float, float] | None = None) -> Tensor:
    """Intersection over union (IoU) of boxes, elementwise.

    Args:
        a: left, top, width and height, (..., 4).
        b: same format and shape.
        bound: (width, height) of the image. If given, both boxes are clipped to the image.

    Returns:
        (...) in [0, 1]; 0 where neither box has an area.

    Raises:
        ValueError: the shapes differ, or are not (..., 4).
    """
    if a.shape != b.shape or a.shape[-1:] != (4,):
        raise ValueError(
            f"box_overlaps needs two tensors (..., 4) of the same shape, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}."
        )
    (low_a, high_a), (low_b, high_b) = _corners(a, bound), _corners(b, bound)
    common = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    union = (high_a - low_a).prod(-1) + (high_b - low_b).prod(-1) - common
    return torch.where(union > 0, common / union.where(union > 0, torch.ones_like(union)), 0)


@renamed_keys(there="visible")
def sequence_overlaps(
    predicted: Tensor, truth: Tensor, visible: Tensor, bound: tuple[float, float] | None = None
) -> Tensor:
    """Overlaps of the evaluated frames: all frames with a visible object, except the first.

    Args:
        predicted: predicted boxes, one per frame, (frames, 4). The first is the given box.
        truth: true boxes, (frames, 4).
        visible: whether the object is visible, (frames,) bool; in GOT-10k, 'cover' > 0.
        bound: see :func:`box_overlaps`.

    Returns:
        (T,) in [0, 1].

    Raises:
        ValueError: the shapes do not match.
    """
    if predicted.shape != truth.shape or visible.shape != truth.shape[:1]:
        raise ValueError(
            f"sequence_overlaps needs predicted and true boxes (T, 4) and visible (T,), got "
            f"{tuple(predicted.shape)}, {tuple(truth.shape)} and {tuple(visible.shape)}."
        )
    return box_overlaps(predicted, truth, bound)[1:][visible[1:]]


def average_overlap(overlaps: Sequence[Tensor]) -> float:
    """Average overlap (AO): mean over the evaluated frames of all sequences, in [0, 1].

    As in the official toolkit, all frames have the same weight, so long sequences weigh more.

    Raises:
        ValueError: no frame is evaluated.
    """
    return float(_all(overlaps).mean())


def success_rate(overlaps: Sequence[Tensor], threshold: float) -> float:
    """Success rate (SR): share of the evaluated frames of all sequences with overlap > threshold.

    Raises:
        ValueError: no frame is evaluated.
    """
    return float((_all(overlaps) > threshold).double().mean())


def class_balanced(values: Sequence[float], classes: Sequence[str]) -> float:
    """Class-balanced mean: ``1/C sum_c 1/|S_c| sum_{i in S_c} v_i``, S_c the sequences of class c.

    It gives mAO from the average overlap of each sequence, and mSR from the success rate of each.

    Args:
        values: v, one per sequence.
        classes: class of the object, one per sequence.

    Raises:
        ValueError: no sequence, or different numbers of classes and values.
    """
    if len(values) != len(classes) or not values:
        raise ValueError(
            f"class_balanced needs at least one value, and one class per value, got {len(values)} "
            f"values and {len(classes)} classes."
        )
    by_class: dict[str, list[float]] = {}
    for value, name in zip(values, classes, strict=True):
        by_class.setdefault(name, []).append(value)
    means = [sum(group) / len(group) for group in by_class.values()]
    return sum(means) / len(means)


def _all(overlaps: Sequence[Tensor]) -> Tensor:
    joined = torch.cat([part.double() for part in overlaps]) if overlaps else torch.empty(0)
    if not len(joined):
        raise ValueError(
            "Tracking scores need at least one evaluated frame, but no frame after the first "
            "shows the object."
        )
    return joined


def _corners(boxes: Tensor, bound: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., :2] + boxes[..., 2:].clamp(min=0)
    if bound is None:
        return low, high
    limit = boxes.new_tensor(bound)
    return low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)
