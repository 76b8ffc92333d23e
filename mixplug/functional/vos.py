"""How well an object is segmented in a video: region, contour, and both over frames.

These are the measures of DAVIS-2017 [0]. Letters: H W the frame, T frames.

- [0]: The 2017 DAVIS Challenge on Video Object Segmentation, 2017,
  https://arxiv.org/abs/1704.00675
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 0.008  # of the diagonal, by which contours may be apart
_QUARTERS = 4


@dataclass(frozen=True)
class Course:
    """A measure over the frames of a video, as fractions.

    Attributes:
        mean: over frames.
        recall: share of frames with more than 0.5.
        decay: mean of the first quarter of frames minus that of the last; < 0 is a gain.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(prediction: Tensor, truth: Tensor) -> Tensor:
    """Jaccard index ``J = |P and G| / |P or G|``; 1 where both are empty.

    Args:
        prediction: P, (..., H, W) bool.
        truth: G, of the same shape.

    Returns:
        (...) float32.

    Raises:
        ValueError: shapes differ, or no masks.
    """
    _require_masks(prediction, truth, "region_similarity")
    union = (prediction | truth).sum((-2, -1))
    ratio = (prediction & truth).sum((-2, -1)) / union.clamp(min=1)
    return torch.where(union == 0, 1.0, ratio)


def contour_accuracy(prediction: Tensor, truth: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    r"""F-measure of contours, ``F = 2 P R / (P + R)``.

    P is the share of the prediction's contour (see :func:`contour`) with a pixel of the true one
    in a disk of ``ceil(tolerance * diagonal)`` pixels around, R that of the true contour with a
    pixel of the prediction's. F is 1 where there are no contours, and 0 where there is only one.

    Args:
        prediction: (..., H, W) bool.
        truth: of the same shape.
        tolerance: as a share of the frame's diagonal.

    Returns:
        (...) float32.

    Raises:
        ValueError: shapes differ, no masks, or a tolerance < 0.
    """
    _require_masks(prediction, truth, "contour_accuracy")
    if not tolerance >= 0:
        raise ValueError(f"contour_accuracy needs a tolerance >= 0, got {tolerance}.")
    radius = math.ceil(tolerance * math.hypot(*prediction.shape[-2:]))
    ours, theirs = (contour(mask).flatten(0, -3) for mask in _batched(prediction, truth))
    counts = ours.sum((1, 2)), theirs.sum((1, 2))
    precision = _near(ours, theirs, radius) / counts[0].clamp(min=1)
    recall = _near(theirs, ours, radius) / counts[1].clamp(min=1)
    total = precision + recall  # 0 too where one contour is empty: then nothing is near it
    found = 2 * precision * recall / torch.where(total > 0, total, 1.0)
    empty = (counts[0] == 0) & (counts[1] == 0)
    return torch.where(empty, 1.0, found).reshape(prediction.shape[:-2])


def contour(mask: Tensor) -> Tensor:
    """Pixels that differ from the one to the right, the one below, or the one between those two.

    A contour thus is one pixel wide and lies half a pixel to the left and above. Beyond the frame
    there is nothing to differ from.

    Args:
        mask: (..., H, W) bool.

    Returns:
        (..., H, W) bool.
    """
    padded = torch.cat([mask, mask[..., -1:]], -1)
    padded = torch.cat([padded, padded[..., -1:, :]], -2)
    here, right = padded[..., :-1, :-1], padded[..., :-1, 1:]
    below, between = padded[..., 1:, :-1], padded[..., 1:, 1:]
    return (here ^ right) | (here ^ below) | (here ^ between)


def course(values: Sequence[float]) -> Course:
    """Mean, recall and decay of a measure over frames.

    Quarters are as in DAVIS' own evaluation: they begin at the frames nearest to 0, 1/4, 1/2 and
    3/4 of the way from the first to the last, and each has the first frame of the next, too.

    Args:
        values: one per frame.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("course needs one frame at least, got none.")
    last = len(values) - 1
    ends = [(quarter * last + _QUARTERS // 2) // _QUARTERS for quarter in range(_QUARTERS + 1)]
    first, final = values[: ends[1] + 1], values[ends[-2] :]
    return Course(
        _mean(values), _mean([float(v > 0.5) for v in values]), _mean(first) - _mean(final)
    )


def _near(points: Tensor, others: Tensor, radius: int) -> Tensor:
    """How many points have others in a disk around them, (B,) of (B, H, W) bool.

    Contours are thin: to look around their pixels is faster than to dilate a frame.
    """
    image, y, x = points.nonzero(as_tuple=True)
    padded = F.pad(others, (radius, radius, radius, radius))
    near = torch.zeros_like(image, dtype=torch.bool)
    for down in range(-radius, radius + 1):  # one row of the disk at a time
        half = math.isqrt(radius**2 - down**2)
        along = torch.arange(-half, half + 1, device=x.device) + radius
        row = (y + down + radius)[:, None]
        near |= padded[image[:, None], row, x[:, None] + along].any(1)
    return torch.zeros(len(points), device=x.device).index_add_(0, image, near.float())


def _batched(*masks: Tensor) -> list[Tensor]:
    return [mask[None] if mask.dim() == 2 else mask for mask in masks]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _require_masks(prediction: Tensor, truth: Tensor, who: str) -> None:
    both = prediction.dtype == truth.dtype == torch.bool
    if prediction.dim() < 2 or prediction.shape != truth.shape or not both:
        raise ValueError(
            f"{who} needs two bool masks (..., H, W) of one shape, got {tuple(prediction.shape)} "
            f"of {prediction.dtype} and {tuple(truth.shape)} of {truth.dtype}."
        )
