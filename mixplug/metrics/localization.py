"""Weakly supervised localization of a whole test set, image by image."""

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

STEPS = 100  # of thresholds from 0 on; at 1 nothing is left of any map
FIXED = 0.15  # threshold of top-1 localization (3.4.5)
_LEAST = 0.5  # overlap of top-1 localization and of MaxBoxAcc


@dataclass(frozen=True)
class Located:
    """The box of an image at the fixed threshold.

    Attributes:
        box: (left, top, right, bottom) in pixels of the map, int64; None if nothing exceeds the
            threshold.
        iou: of it and the true box that it fits best.
    """

    box: Tensor | None
    iou: float


class Localization:
    """Streams maps; holds two overlaps for each image and threshold, and no map.

    Args:
        threshold: of top-1 localization.
        steps: T, how many thresholds 0, 1/T, ..., 1 - 1/T the best one is sought among. The code of
            Choe et al. has 1000 of them.

    Raises:
        ValueError: a threshold outside [0, 1), or no step.
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
        """Count the images of a batch.

        Args:
            heat: maps from 0 to 1, (B, H, W), see :func:`mixplug.functional.heat_of_map`.
            truths: true boxes of each image in the pixels of its map, B times (n, 4).
            right: whether its class is, (B,) bool.

        Returns:
            Of each image what was found at the fixed threshold.

        Raises:
            ValueError: shapes do not fit, or an image without a true box.
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
        """All scores, as fractions, and thresholds.

        ``top1``: classification. ``top1_localization``: class right and overlap of at least 0.5 at
        the fixed threshold; ``gt_known_localization``: the same whatever the class.
        ``max_box_acc`` with ``max_box_acc_threshold``: of the largest component, at 0.5.
        ``max_box_acc_v2``: of the best component, the mean of ``max_box_acc_v2@0.3``, ``@0.5`` and
        ``@0.7``, each of which has its ``..._threshold``.

        Raises:
            ValueError: no image.
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
class Shown:
    """An image for the figure.

    Attributes:
        pixels: (3, H, W) uint8, RGB.
        heat: (H, W) from 0 to 1.
        box: predicted, (4,), or None.
        truths: true ones, (n, 4).
        iou: of the predicted box and the true one that it fits best.
        label: the true class.
        predicted: the predicted class.
    """

    pixels: Tensor = field(repr=False)
    heat: Tensor = field(repr=False)
    box: Tensor | None
    truths: Tensor
    iou: float
    label: int
    predicted: int
