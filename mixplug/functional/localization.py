"""Where a classifier looks, as a map and as a box: weakly supervised localization (3.4.5).

Letters: B images, C channels, h w grid of a map, H W pixels, K classes, T thresholds, n boxes.
Boxes are (left, top, right, bottom), of which right and bottom are the first that are outside, so
an area is (right - left) (bottom - top), as in :mod:`mixplug.functional.discovery`. The code of [1]
counts right and bottom as inside, of boxes that end a pixel later: its areas are a row and a column
larger.

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

_WHY = "Weakly supervised localization"
OVERLAPS = (0.3, 0.5, 0.7)  # of MaxBoxAccV2


def class_activation_map(maps: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    r"""What each position adds to the logit of a class: CAM [0].

        S_k(x, y) = \sum_c w_{kc} A_c(x, y)

    Where the classifier follows average pooling, the mean of S_k and the bias are the logit.

    Args:
        maps: A, the map before pooling, (B, C, h, w).
        weight: w of the linear classifier, (K, C).
        classes: k of each image, (B,) int64.

    Returns:
        (B, h, w) float32, or float64 if the maps are.

    Raises:
        ValueError: shapes do not fit, or a class that there is not.

    - [0]: Learning Deep Features for Discriminative Localization, 2016,
      https://arxiv.org/abs/1512.04150
    """
    fits = maps.dim() == 4 and weight.dim() == 2 and maps.shape[1] == weight.shape[1]
    if not fits or classes.shape != maps.shape[:1]:
        raise ValueError(
            f"class_activation_map needs maps (B, C, h, w), a weight (K, C) and classes (B,), got "
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
    r"""Maps as large as images, each from 0 to 1.

        (S - min S) / (max S - min S),   after bicubic interpolation of S, in this order as in [1]

    Args:
        maps: S, (B, h, w).
        size: (H, W).

    Returns:
        (B, H, W) float32, or float64 if the maps are; 0 everywhere of a map that is constant.

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    if maps.dim() != 3 or not maps.numel():
        raise ValueError(f"heat_of_map needs maps (B, h, w), got {tuple(maps.shape)}.")
    if not maps.isfinite().all():
        raise ValueError("heat_of_map needs finite maps, got NaN or infinity.")
    with torch.autocast(maps.device.type, enabled=False):
        large = maps.to(exact_dtype(maps))[:, None]
        constant = large.amax((1, 2, 3)) == large.amin((1, 2, 3))  # before rounding in resizing
        large = F.interpolate(large, size, mode="bicubic", align_corners=False)[:, 0]
        low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
        span = torch.where(constant[:, None, None], torch.inf, high - low)
        return (large - low) / span


def component_boxes(mask: Tensor) -> Tensor:
    """The boxes around all connected components of a mask, the largest component first.

    Pixels are connected that share a side or a corner, as in OpenCV's contours, with which [1]
    finds components. Size is the number of pixels, where [1] takes the area within the contour;
    holes in a component are no components. Of components of one size the first counts.

    Args:
        mask: (H, W) bool.

    Returns:
        (n, 4) int64; n = 0 for an empty mask.

    Raises:
        ValueError: another shape or type.
        ImportError: scipy is not installed.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f"component_boxes needs a mask (H, W) of bool, got {tuple(mask.shape)} of {mask.dtype}."
        )
    return torch.from_numpy(_boxes(mask.cpu().numpy())).to(mask.device)


def boxes_by_threshold(heat: Tensor, thresholds: Sequence[float]) -> list[Tensor]:
    """Of each threshold t the :func:`component_boxes` of the mask ``heat > t``.

    Args:
        heat: (H, W), see :func:`heat_of_map`.
        thresholds: T of them, in the units of the map.

    Returns:
        T times (n, 4) int64 on the CPU, the box of the largest component first.

    Raises:
        ValueError: another shape, or no threshold.
        ImportError: scipy is not installed.
    """
    if heat.dim() != 2 or not len(thresholds):
        raise ValueError(
            f"boxes_by_threshold needs a map (H, W) and thresholds, got {tuple(heat.shape)} and "
            f"{len(thresholds)} thresholds."
        )
    values = heat.detach().cpu()
    return [component_boxes(values > t) for t in thresholds]


def box_iou(boxes: Tensor, truths: Tensor) -> Tensor:
    """Intersection over union of all pairs of boxes.

    Args:
        boxes: (n, 4).
        truths: (m, 4).

    Returns:
        (n, m) in [0, 1], float64 if the true boxes are, else float32.

    Raises:
        ValueError: other shapes, or a box whose right or bottom is not beyond its left or top.
        ImportError: torchvision is not installed.
    """
    for name, given in (("boxes", boxes), ("truths", truths)):
        if given.dim() != 2 or given.shape[1] != 4:
            raise ValueError(f"box_iou needs {name} (n, 4), got {tuple(given.shape)}.")
        flat = given[(given[:, 2:] <= given[:, :2]).any(1)]
        if len(flat):
            raise ValueError(
                f"box_iou needs {name} (left, top, right, bottom) with an area, got "
                f"{flat[0].tolist()}."
            )
    ops = optional("torchvision.ops", "timm", _WHY)
    dtype = exact_dtype(truths)
    found: Tensor = ops.box_iou(boxes.to(dtype), truths.to(dtype))
    return found


def map_overlaps(
    heat: Tensor, truths: Tensor, thresholds: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """How well the boxes of a map fit a true box, of all thresholds.

    Args:
        heat: (H, W), see :func:`heat_of_map`.
        truths: true boxes in the pixels of the map, (m, 4), m >= 1; of several the best counts.
        thresholds: T of them.

    Returns:
        Intersections over union of the largest component's box, and of the best one of all
        components, (T,) each on the CPU; 0 where nothing exceeds the threshold. float64 if the
        true boxes are, else float32.

    Raises:
        ValueError: no true box; see :func:`boxes_by_threshold` and :func:`box_iou`.
    """
    if not len(truths):
        raise ValueError("map_overlaps needs a true box at least, got none.")
    found = boxes_by_threshold(heat, thresholds)
    counts = torch.tensor([len(boxes) for boxes in found])
    overlap = box_iou(torch.cat(found), truths.cpu()).amax(1)  # of every box of every threshold
    of = torch.arange(len(found)).repeat_interleave(counts)
    none = overlap.new_zeros(len(found))
    best = none.scatter_reduce(0, of, overlap, "amax")
    largest = none.clone()
    some = counts > 0
    largest[some] = overlap[(counts.cumsum(0) - counts)[some]]
    return largest, best


def top1_localization(right: Tensor, iou: Tensor, least: float = 0.5) -> Tensor:
    """Top-1 localization: share of images that are classified and localized right (3.4.5).

    Args:
        right: whether the class is, (B,) bool.
        iou: of the box at a fixed threshold, (B,).
        least: intersection over union that counts as right.

    Returns:
        Scalar, a fraction, float64.

    Raises:
        ValueError: shapes or types do not fit, or no image.
    """
    if right.shape != iou.shape or right.dim() != 1 or right.dtype != torch.bool or not len(iou):
        raise ValueError(
            f"top1_localization needs right (B,) of bool and iou (B,) with B >= 1, got "
            f"{tuple(right.shape)} of {right.dtype} and {tuple(iou.shape)}."
        )
    return (right & (iou >= least)).double().mean()


def max_box_accuracy(iou: Tensor, least: float = 0.5) -> tuple[Tensor, Tensor]:
    r"""MaxBoxAcc [1]: share of images with a fitting box, at the threshold that is best for all.

        max_t 1/B \sum_b [IoU_b(t) >= least]

    Args:
        iou: of each image at each threshold, (B, T).
        least: intersection over union that counts as right.

    Returns:
        The accuracy, a fraction, float64; and the number of its threshold, the lowest if several
        are as good. Scalars.

    Raises:
        ValueError: another shape, or no image or threshold.
    """
    if iou.dim() != 2 or not iou.numel():
        raise ValueError(
            f"max_box_accuracy needs iou (B, T) with B, T >= 1, got {tuple(iou.shape)}."
        )
    share = (iou >= least).double().mean(0)
    best = share.max()
    return best, (share == best).to(torch.int8).argmax()


def max_box_accuracy_v2(iou: Tensor, leasts: Sequence[float] = OVERLAPS) -> Tensor:
    r"""MaxBoxAccV2 [1]: the mean of MaxBoxAcc over demands on the overlap.

        1/3 \sum_{d in {0.3, 0.5, 0.7}} max_t 1/B \sum_b [IoU_b(t) >= d]

    Each demand has a threshold t of its own. The overlap is that of the best box of all components,
    see :func:`map_overlaps`; MaxBoxAcc takes that of the largest component.

    Args:
        iou: (B, T).
        leasts: the demands d.

    Returns:
        Scalar, a fraction, float64.

    Raises:
        ValueError: no demand; see :func:`max_box_accuracy`.
    """
    if not len(leasts):
        raise ValueError("max_box_accuracy_v2 needs an overlap that counts as right, got none.")
    return torch.stack([max_box_accuracy(iou, least)[0] for least in leasts]).mean()


def _boxes(mask: Any) -> Any:
    """Boxes (n, 4) int64 of the components of a numpy mask, the largest first."""
    import numpy as np

    ndimage = optional("scipy.ndimage", "card", _WHY)
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return np.zeros((0, 4), np.int64)
    top, left = rows[0], columns[0]  # a high threshold leaves little to look through
    inside = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    labels, _ = ndimage.label(inside, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    places = ndimage.find_objects(labels)
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in places], np.int64)
    shift = np.array([left, top, left, top], np.int64)
    found = boxes[np.argsort(-sizes, kind="stable")] + shift
    return found
