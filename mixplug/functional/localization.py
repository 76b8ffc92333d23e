"""Weakly supervised object localization: class activation maps, boxes and scores (§3.4.5).

Letters: B images, C channels, h w grid of a map, H W pixels, K classes, T thresholds, n boxes.
Boxes are (left, top, right, bottom). Right and bottom are exclusive, so the area is
(right - left) (bottom - top), as in :mod:`mixplug.functional.discovery`. The code of [1] treats
right and bottom as inclusive, for boxes that end one pixel later, so its boxes are larger by one
row and one column.

- [1]: Evaluating Weakly Supervised Object Localization Methods Right, 2020,
  https://arxiv.org/abs/2001.07437
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.optional import optional

_FEATURE = "Weakly supervised localization"
OVERLAPS = (0.3, 0.5, 0.7)  # IoU thresholds of MaxBoxAccV2


def class_activation_map(maps: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    r"""Class activation map (CAM) [0]: the contribution of each position to the logit of a class.

        S_k(x, y) = \sum_c w_{kc} A_c(x, y)

    If a linear classifier follows average pooling, the logit is the mean of S_k plus the bias.

    Args:
        maps: feature maps A before pooling, (B, C, h, w).
        weight: weight w of the linear classifier, (K, C).
        classes: class k of each image, (B,) int64.

    Returns:
        (B, h, w), float32 (float64 for float64 maps).

    Raises:
        ValueError: shapes do not match, or a class is outside [0, K).

    - [0]: Learning Deep Features for Discriminative Localization, 2016,
      https://arxiv.org/abs/1512.04150
    """
    fits = maps.dim() == 4 and weight.dim() == 2 and maps.shape[1] == weight.shape[1]
    if not fits or classes.shape != maps.shape[:1]:
        raise ValueError(
            f"class_activation_map needs maps (B, C, h, w), weight (K, C) and classes (B,), got "
            f"{tuple(maps.shape)}, {tuple(weight.shape)} and {tuple(classes.shape)}."
        )
    if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < len(weight):
        raise ValueError(
            f"class_activation_map needs classes in [0, {len(weight)}), got {int(classes.min())} "
            f"to {int(classes.max())}."
        )
    with torch.autocast(maps.device.type, enabled=False):
        dtype = exact_dtype(maps)
        return torch.einsum("bchw,bc->bhw", maps.to(dtype), weight[classes].to(dtype))


def heat_of_map(maps: Tensor, size: tuple[int, int]) -> Tensor:
    r"""Heat maps: maps enlarged to the size of the images, each scaled to [0, 1].

        (S - min S) / (max S - min S),   computed after bicubic interpolation of S, as in [1]

    Args:
        maps: maps S, (B, h, w).
        size: size (H, W) of the result, in pixels.

    Returns:
        (B, H, W), float32 (float64 for float64 maps). A constant map gives 0 everywhere.

    Raises:
        ValueError: wrong shape, or a value is not finite.
    """
    if maps.dim() != 3 or not maps.numel():
        raise ValueError(f"heat_of_map needs maps (B, h, w), got {tuple(maps.shape)}.")
    if not maps.isfinite().all():
        raise ValueError("heat_of_map needs finite maps, got NaN or infinite values.")
    with torch.autocast(maps.device.type, enabled=False):
        large = maps.to(exact_dtype(maps))[:, None]
        constant = large.amax((1, 2, 3)) == large.amin((1, 2, 3))  # interpolation adds rounding
        large = F.interpolate(large, size, mode="bicubic", align_corners=False)[:, 0]
        low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
        span = torch.where(constant[:, None, None], torch.inf, high - low)
        return (large - low) / span


def component_boxes(mask: Tensor) -> Tensor:
    """Bounding boxes of all connected components of a mask, the largest component first.

    Pixels that share a side or a corner are connected. This agrees with the contours of OpenCV,
    which [1] uses to find components. The size of a component is its number of pixels; [1] uses
    the area inside of the contour instead. Holes form no components. Components of the same size
    keep their order.

    Args:
        mask: (H, W) bool.

    Returns:
        (n, 4) int64; n = 0 for an empty mask.

    Raises:
        ValueError: wrong shape or dtype.
        ImportError: scipy is not installed.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f"component_boxes needs a bool mask (H, W), got {tuple(mask.shape)} of {mask.dtype}."
        )
    return torch.from_numpy(_boxes(mask.cpu().numpy())).to(mask.device)


def boxes_by_threshold(heat: Tensor, thresholds: Sequence[float]) -> list[Tensor]:
    """:func:`component_boxes` of the mask ``heat > t``, for every threshold t.

    Args:
        heat: heat map, (H, W), see :func:`heat_of_map`.
        thresholds: T thresholds, in the units of the heat map.

    Returns:
        T tensors (n, 4) int64 on the CPU, the box of the largest component first.

    Raises:
        ValueError: wrong shape, or no threshold.
        ImportError: scipy is not installed.
    """
    if heat.dim() != 2 or not len(thresholds):
        raise ValueError(
            f"boxes_by_threshold needs a map (H, W) and at least one threshold, got "
            f"{tuple(heat.shape)} and {len(thresholds)} thresholds."
        )
    values = heat.detach().cpu()
    return [component_boxes(values > t) for t in thresholds]


def box_iou(boxes: Tensor, truths: Tensor) -> Tensor:
    """Intersection over union (IoU) of all pairs of boxes.

    Args:
        boxes: predicted boxes, (n, 4).
        truths: true boxes, (m, 4).

    Returns:
        (n, m) in [0, 1], float32 (float64 for float64 ``truths``).

    Raises:
        ValueError: wrong shapes, or a box without area (right <= left or bottom <= top).
        ImportError: torchvision is not installed.
    """
    for name, argument in (("boxes", boxes), ("truths", truths)):
        if argument.dim() != 2 or argument.shape[1] != 4:
            raise ValueError(f"box_iou needs {name} (n, 4), got {tuple(argument.shape)}.")
        empty = argument[(argument[:, 2:] <= argument[:, :2]).any(1)]
        if len(empty):
            raise ValueError(
                f"box_iou needs {name} (left, top, right, bottom) with an area > 0, got "
                f"{empty[0].tolist()}."
            )
    ops = optional("torchvision.ops", "timm", _FEATURE)
    dtype = exact_dtype(truths)
    iou: Tensor = ops.box_iou(boxes.to(dtype), truths.to(dtype))
    return iou


def map_overlaps(
    heat: Tensor, truths: Tensor, thresholds: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """IoU between the boxes of a heat map and the true boxes, at every threshold.

    Args:
        heat: heat map, (H, W), see :func:`heat_of_map`.
        truths: true boxes, in pixels of the heat map, (m, 4), m >= 1. Each box of the heat map is
            compared with the true box that it fits best.
        thresholds: T thresholds, in the units of the heat map.

    Returns:
        Two tensors (T,) on the CPU: the IoU of the box of the largest component, and the largest
        IoU over the boxes of all components. Both are 0 where no pixel exceeds the threshold.
        float32 (float64 for float64 ``truths``).

    Raises:
        ValueError: no true box; see also :func:`boxes_by_threshold` and :func:`box_iou`.
        ImportError: scipy or torchvision is not installed.
    """
    if not len(truths):
        raise ValueError("map_overlaps needs at least one true box, got none.")
    boxes = boxes_by_threshold(heat, thresholds)
    counts = torch.tensor([len(part) for part in boxes])
    overlap = box_iou(torch.cat(boxes), truths.cpu()).amax(1)  # of every box of every threshold
    threshold_index = torch.arange(len(boxes)).repeat_interleave(counts)
    zeros = overlap.new_zeros(len(boxes))
    best = zeros.scatter_reduce(0, threshold_index, overlap, "amax")
    largest = zeros.clone()
    has_box = counts > 0
    largest[has_box] = overlap[(counts.cumsum(0) - counts)[has_box]]
    return largest, best


def top1_localization(right: Tensor, iou: Tensor, least: float = 0.5) -> Tensor:
    """Top-1 localization (§3.4.5): share of images with a correct class and a correct box.

    Args:
        right: whether the predicted class is correct, (B,) bool.
        iou: IoU of the box at a fixed threshold of the heat map, (B,).
        least: smallest IoU of a correct box.

    Returns:
        Scalar, a fraction, float64.

    Raises:
        ValueError: shapes or dtypes do not match, or no image.
    """
    if right.shape != iou.shape or right.dim() != 1 or right.dtype != torch.bool or not len(iou):
        raise ValueError(
            f"top1_localization needs a bool right (B,) and iou (B,) with B >= 1, got "
            f"{tuple(right.shape)} of {right.dtype} and {tuple(iou.shape)}."
        )
    return (right & (iou >= least)).double().mean()


def max_box_accuracy(iou: Tensor, least: float = 0.5) -> tuple[Tensor, Tensor]:
    r"""MaxBoxAcc [1]: share of images with a correct box, at the best common threshold.

        max_t 1/B \sum_b [IoU_b(t) >= least]

    Args:
        iou: IoU of each image at each threshold, (B, T).
        least: smallest IoU of a correct box.

    Returns:
        Two scalars: the accuracy, a fraction, float64; and the index of its threshold (the first
        of several best ones).

    Raises:
        ValueError: wrong shape, no image, or no threshold.
    """
    if iou.dim() != 2 or not iou.numel():
        raise ValueError(
            f"max_box_accuracy needs iou (B, T) with B, T >= 1, got {tuple(iou.shape)}."
        )
    share = (iou >= least).double().mean(0)
    best = share.max()
    return best, (share == best).to(torch.int8).argmax()


def max_box_accuracy_v2(iou: Tensor, leasts: Sequence[float] = OVERLAPS) -> Tensor:
    r"""MaxBoxAccV2 [1]: mean of MaxBoxAcc over several IoU thresholds δ of a correct box.

        1/3 \sum_{δ in {0.3, 0.5, 0.7}} max_t 1/B \sum_b [IoU_b(t) >= δ]

    The best threshold t of the heat map is chosen for each δ separately. MaxBoxAccV2 takes the IoU
    of the best box of all components, MaxBoxAcc that of the largest component (see
    :func:`map_overlaps`).

    Args:
        iou: IoU of each image at each threshold t, (B, T).
        leasts: the values of δ.

    Returns:
        Scalar, a fraction, float64.

    Raises:
        ValueError: no δ; see also :func:`max_box_accuracy`.
    """
    if not len(leasts):
        raise ValueError("max_box_accuracy_v2 needs at least one IoU threshold, got none.")
    return torch.stack([max_box_accuracy(iou, least)[0] for least in leasts]).mean()


def _boxes(mask: Any) -> Any:
    """Boxes (n, 4) int64 of the components of a NumPy mask, the largest component first."""
    import numpy as np

    ndimage = optional("scipy.ndimage", "card", _FEATURE)
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return np.zeros((0, 4), np.int64)
    top, left = rows[0], columns[0]  # cropping saves time, as high thresholds leave few pixels
    cropped = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    labels, _ = ndimage.label(cropped, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    slices = ndimage.find_objects(labels)
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices], np.int64)
    shift = np.array([left, top, left, top], np.int64)
    return boxes[np.argsort(-sizes, kind="stable")] + shift
