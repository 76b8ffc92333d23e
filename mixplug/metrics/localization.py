"""Weakly supervised object localization scores of a test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mixplug.functional.localization import (
    OVERLAPS,
    boxes_by_threshold,
    map_overlaps,
    max_box_accuracy,
    max_box_accuracy_v2,
    top1_localization,
)
from mixplug.renamed import renamed_names

STEPS = 100  # thresholds from 0 on; at 1 no pixel would be left
FIXED = 0.15  # threshold of top-1 localization (3.4.5)
_LEAST = 0.5  # required overlap of top-1 localization and of MaxBoxAcc


@dataclass(frozen=True)
class Located:
    """The box of an image at the fixed threshold.

    Attributes:
        box: (left, top, right, bottom) in pixels of the map, int64; None if no pixel exceeds the
            threshold.
        iou: largest IoU of the box and a ground-truth box.
    """

    box: Tensor | None
    iou: float


class Localization:
    """Accumulates localization scores; it holds two overlaps per image and threshold, no maps.

    Args:
        threshold: of top-1 localization.
        steps: T, number of thresholds 0, 1/T, ..., 1 - 1/T to choose the best from. The code of
            Choe et al. uses 1000.

    Raises:
        ValueError: a threshold outside [0, 1), or steps < 1.
    """

    def __init__(self, threshold: float = FIXED, steps: int = STEPS) -> None:
        if not 0 <= threshold < 1 or steps < 1:
            raise ValueError(
                f"Localization needs a threshold in [0, 1) and steps >= 1, got {threshold} and "
                f"{steps}."
            )
        self.threshold = threshold
        self.thresholds = [step / steps for step in range(steps)]
        self._right: list[Tensor] = []
        self._rows: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def update(self, heat: Tensor, truths: Sequence[Tensor], right: Tensor) -> list[Located]:
        """Add a batch of images.

        Args:
            heat: maps in [0, 1], (B, H, W), see :func:`mixplug.functional.heat_of_map`.
            truths: ground-truth boxes of each image in pixels of its map, B times (n, 4).
            right: whether the predicted class is correct, (B,) bool.

        Returns:
            The box of each image at the fixed threshold.

        Raises:
            ValueError: shapes do not fit, or an image without a ground-truth box.
        """
        if heat.dim() != 3 or not len(heat) == len(truths) == len(right):
            raise ValueError(
                f"Localization needs maps (B, H, W), B true boxes and right (B,), got "
                f"{tuple(heat.shape)}, {len(truths)} and {tuple(right.shape)}."
            )
        self._right.append(right.bool().cpu())
        return [self._one(one, boxes) for one, boxes in zip(heat.cpu(), truths, strict=True)]

    def _one(self, heat: Tensor, truths: Tensor) -> Located:
        truths = truths.double()
        largest, best = map_overlaps(heat, truths, (*self.thresholds, self.threshold))
        self._rows.append((largest, best[:-1]))
        (boxes,) = boxes_by_threshold(heat, (self.threshold,))
        return Located(boxes[0] if len(boxes) else None, float(largest[-1]))

    def compute(self) -> dict[str, float]:
        """All scores, as fractions, and the best thresholds.

        - ``top1``: classification accuracy;
        - ``top1_localization``: share of images with a correct class and an overlap of at least 0.5
          at the fixed threshold;
        - ``gt_known_localization``: the same, whatever the predicted class;
        - ``max_box_acc``: share of images whose largest component overlaps by at least 0.5, at
          ``max_box_acc_threshold``;
        - ``max_box_acc_v2``: mean of ``max_box_acc_v2@0.3``, ``@0.5`` and ``@0.7``, the shares for
          the best component, each at its own ``..._threshold``.

        Raises:
            ValueError: no image was added.
        """
        if not self._rows:
            raise ValueError("Localization has seen no image.")
        right = torch.cat(self._right)
        largest, best = (torch.stack(rows) for rows in zip(*self._rows, strict=True))
        fixed, largest = largest[:, -1], largest[:, :-1]
        found = {
            "top1": float(right.double().mean()),
            "top1_localization": float(top1_localization(right, fixed, _LEAST)),
            "gt_known_localization": float(
                top1_localization(torch.ones_like(right), fixed, _LEAST)
            ),
            **self._max("max_box_acc", largest, _LEAST),
            "max_box_acc_v2": float(max_box_accuracy_v2(best)),
        }
        for least in OVERLAPS:
            found |= self._max(f"max_box_acc_v2@{least}", best, least)
        return found

    def _max(self, name: str, iou: Tensor, least: float) -> dict[str, float]:
        accuracy, place = max_box_accuracy(iou, least)
        return {name: float(accuracy), f"{name}_threshold": self.thresholds[int(place)]}


@dataclass(frozen=True)
class LocalizedImage:
    """An image with its map and boxes, for a figure.

    Attributes:
        pixels: (3, H, W) uint8, RGB.
        heat: (H, W) in [0, 1].
        box: predicted box (4,), or None.
        truths: ground-truth boxes, (n, 4).
        iou: largest IoU of the predicted box and a ground-truth box.
        label: true class.
        predicted: predicted class.
    """

    pixels: Tensor = field(repr=False)
    heat: Tensor = field(repr=False)
    box: Tensor | None
    truths: Tensor
    iou: float
    label: int
    predicted: int


__getattr__ = renamed_names(__name__, {"Shown": LocalizedImage})
