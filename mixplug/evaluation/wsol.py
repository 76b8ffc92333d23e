"""Weakly supervised localization with the maps of a classifier (3.4.5, Table 3.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mixplug.evaluation.results import Tick, unseen
from mixplug.functional.localization import heat_of_map
from mixplug.metrics.localization import FIXED, STEPS, Localization, Located, Shown

# Inputs (B, 3, H, W) and classes (B,) to logits (B, K) and maps (B, h, w).
HeatMaps = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Batch:
    """Images as the network takes them, and what is true of them.

    Attributes:
        inputs: (B, 3, H, W), on the device of the network.
        pixels: the same as pictures, (B, 3, H, W) uint8, RGB, on the CPU.
        labels: (B,) int64.
        boxes: true ones in pixels of the inputs, B times (n, 4).
        names: of the images.
    """

    inputs: Tensor = field(repr=False)
    pixels: Tensor = field(repr=False)
    labels: Tensor
    boxes: Sequence[Tensor]
    names: Sequence[str]


def localize(
    heat_maps: HeatMaps,
    batches: Iterable[Batch],
    total: int,
    threshold: float = FIXED,
    steps: int = STEPS,
    show: int = 0,
    tick: Tick = unseen,
) -> tuple[dict[str, Any], list[Shown]]:
    """Find the object of each image with the map of its true class.

    The map is resized to the image and scaled to [0, 1], and boxes are around what exceeds a
    threshold: the box of the largest component at ``threshold`` for top-1 localization, as in the
    thesis, and at the best of all thresholds for MaxBoxAcc. Where the class is right, the map of
    the true class is that of the predicted one.

    Args:
        heat_maps: of the network, in evaluation mode.
        batches: of all images.
        total: how many images there are.
        threshold: of top-1 localization.
        steps: of thresholds that the best is sought among.
        show: how many images are kept for a figure, evenly spread.
        tick: called after every batch.

    Returns:
        The scores of :class:`mixplug.metrics.localization.Localization` in percent, thresholds as
        they are, ``images`` with what was found in each, and the settings; and images to be drawn.

    Raises:
        ValueError: other settings, no image, or maps that are not finite.
    """
    scores = Localization(threshold, steps)
    wanted = {(2 * i + 1) * total // (2 * show) for i in range(show)}
    images: list[dict[str, Any]] = []
    shown: list[Shown] = []
    tick(0, total, "localizing")
    for batch in batches:
        with torch.no_grad():
            logits, maps = heat_maps(batch.inputs, batch.labels)
        heat = heat_of_map(maps, (batch.inputs.shape[-2], batch.inputs.shape[-1])).cpu()
        labels, predicted = batch.labels.cpu(), logits.argmax(1).cpu()
        located = scores.update(heat, batch.boxes, predicted == labels)
        for i, one in enumerate(located):
            if len(images) in wanted:
                truths, classes = batch.boxes[i], (int(labels[i]), int(predicted[i]))
                shown.append(Shown(batch.pixels[i], heat[i], one.box, truths, one.iou, *classes))
            images.append(_told(batch.names[i], one, bool(predicted[i] == labels[i])))
        tick(len(images), total, "localizing")
    values = {
        name: value if name.endswith("_threshold") else 100 * value
        for name, value in scores.compute().items()
    }
    settings = {"threshold": threshold, "steps": steps, "count": len(images)}
    return {**values, **settings, "images": images}, shown


def _told(name: str, one: Located, right: bool) -> dict[str, Any]:
    box = None if one.box is None else one.box.tolist()
    return {"name": name, "right": right, "iou": one.iou, "box": box}
