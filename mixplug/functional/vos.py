"""Scores of video object segmentation (DAVIS-2017 [0]): region similarity and contour accuracy.

Letters: H W the frame, T frames.

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

TOLERANCE = 0.008  # allowed distance between contours, as a fraction of the frame diagonal
_QUARTERS = 4


@dataclass(frozen=True)
class Course:
    """Summary of a measure over the frames of a video. All values are fractions.

    Attributes:
        mean: mean over frames.
        recall: share of frames with a value above 0.5.
        decay: mean over the first quarter of frames minus mean over the last quarter. It is
            negative if the measure improves over time.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(prediction: Tensor, truth: Tensor) -> Tensor:
    """Region similarity J: Jaccard index ``|P and G| / |P or G|`` of two masks.

    Args:
        prediction: predicted mask P, (..., H, W) bool.
        truth: true mask G, same shape.

    Returns:
        (...) float32; 1 where both masks are empty.

    Raises:
        ValueError: shapes differ, or the tensors are not bool masks.
    """
    _require_masks(prediction, truth, "region_similarity")
    union = (prediction | truth).sum((-2, -1))
    ratio = (prediction & truth).sum((-2, -1)) / union.clamp(min=1)
    return torch.where(union == 0, 1.0, ratio)


def contour_accuracy(prediction: Tensor, truth: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    r"""Contour accuracy F: the F-measure ``F = 2 P R / (P + R)`` of two contours.

    The precision P is the share of pixels of the predicted contour that have a pixel of the true
    contour within ``ceil(tolerance * diagonal)`` pixels. The recall R is the share of pixels of the
    true contour that have a pixel of the predicted contour within the same distance. For contours,
    see :func:`contour`.

    Args:
        prediction: predicted mask, (..., H, W) bool.
        truth: true mask, same shape.
        tolerance: allowed distance, as a fraction of the frame diagonal.

    Returns:
        (...) float32. F is 1 where neither mask has a contour, and 0 where only one has.

    Raises:
        ValueError: shapes differ, the tensors are not bool masks, or tolerance < 0.
    """
    _require_masks(prediction, truth, "contour_accuracy")
    if not tolerance >= 0:
        raise ValueError(f"contour_accuracy needs a tolerance >= 0, got {tolerance}.")
    radius = math.ceil(tolerance * math.hypot(*prediction.shape[-2:]))
    predicted, true = (contour(mask).flatten(0, -3) for mask in _batched(prediction, truth))
    counts = predicted.sum((1, 2)), true.sum((1, 2))
    precision = _count_near(predicted, true, radius) / counts[0].clamp(min=1)
    recall = _count_near(true, predicted, radius) / counts[1].clamp(min=1)
    total = precision + recall  # also 0 if only one contour is empty
    f_measure = 2 * precision * recall / torch.where(total > 0, total, 1.0)
    empty = (counts[0] == 0) & (counts[1] == 0)
    return torch.where(empty, 1.0, f_measure).reshape(prediction.shape[:-2])


def contour(mask: Tensor) -> Tensor:
    """Contour of a mask: pixels that differ from their right, lower or lower-right neighbor.

    The contour is one pixel wide and shifted by half a pixel to the left and upwards. The border of
    the frame is not a contour.

    Args:
        mask: (..., H, W) bool.

    Returns:
        (..., H, W) bool.
    """
    padded = torch.cat([mask, mask[..., -1:]], -1)
    padded = torch.cat([padded, padded[..., -1:, :]], -2)
    center, right = padded[..., :-1, :-1], padded[..., :-1, 1:]
    lower, lower_right = padded[..., 1:, :-1], padded[..., 1:, 1:]
    return (center ^ right) | (center ^ lower) | (center ^ lower_right)


def course(values: Sequence[float]) -> Course:
    """Mean, recall and decay of a measure over the frames of a video.

    The quarters are those of the official DAVIS evaluation: they start at the frames nearest to 0,
    1/4, 1/2 and 3/4 of the video, and each one includes the first frame of the next.

    Args:
        values: one value per frame.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("course needs at least one frame, got none.")
    last = len(values) - 1
    ends = [(quarter * last + _QUARTERS // 2) // _QUARTERS for quarter in range(_QUARTERS + 1)]
    first, final = values[: ends[1] + 1], values[ends[-2] :]
    return Course(
        _mean(values), _mean([float(v > 0.5) for v in values]), _mean(first) - _mean(final)
    )


def _count_near(points: Tensor, others: Tensor, radius: int) -> Tensor:
    """Number of points (B, H, W) bool that have any of ``others`` within ``radius``, (B,).

    Contours have few pixels, so looking around each pixel is faster than dilating the frame.
    """
    image, y, x = points.nonzero(as_tuple=True)
    padded = F.pad(others, (radius, radius, radius, radius))
    near = torch.zeros_like(image, dtype=torch.bool)
    for down in range(-radius, radius + 1):  # one row of the disk at a time
        half = math.isqrt(radius**2 - down**2)
        offsets = torch.arange(-half, half + 1, device=x.device) + radius
        row = (y + down + radius)[:, None]
        near |= padded[image[:, None], row, x[:, None] + offsets].any(1)
    return torch.zeros(len(points), device=x.device).index_add_(0, image, near.float())


def _batched(*masks: Tensor) -> list[Tensor]:
    return [mask[None] if mask.dim() == 2 else mask for mask in masks]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _require_masks(prediction: Tensor, truth: Tensor, caller: str) -> None:
    both_bool = prediction.dtype == truth.dtype == torch.bool
    if prediction.dim() < 2 or prediction.shape != truth.shape or not both_bool:
        raise ValueError(
            f"{caller} needs two bool masks (..., H, W) of the same shape, got "
            f"{tuple(prediction.shape)} of {prediction.dtype} and {tuple(truth.shape)} of "
            f"{truth.dtype}."
        )
