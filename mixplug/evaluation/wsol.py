"""Weakly supervised object localization with heat maps of a classifier (3.4.5, Table 3.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mixplug.evaluation.results import Tick, no_progress
from mixplug.functional.localization import heat_of_map
from mixplug.metrics.localization import FIXED, STEPS, Localization, LocalizedImage, Located
from mixplug.renamed import old_names

# Inputs (B, 3, H, W) and classes (B,) to logits (B, K) and maps (B, h, w).
HeatMaps = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Batch:
    """Preprocessed images with their labels and boxes.

    Attributes:
        inputs: (B, 3, H, W), on the device of the network.
        pixels: the same images before normalization, (B, 3, H, W) uint8, RGB, on the CPU.
        labels: (B,) int64.
        boxes: ground-truth boxes in pixels of the inputs, B times (n, 4).
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
    tick: Tick = no_progress,
) -> tuple[dict[str, Any], list[LocalizedImage]]:
    """Localize the object of each image with the heat map of its true class.

    The map is resized to the image and scaled to [0, 1]. Boxes enclose connected components of the
    pixels above a threshold. Top-1 localization takes the box of the largest component at
    ``threshold``, as in the thesis; MaxBoxAcc takes the best of all thresholds. If the predicted
    class is correct, the map of the true class is that of the predicted class.

    Args:
        heat_maps: from inputs and classes to logits and maps, in evaluation mode.
        batches: all images.
        total: number of images.
        threshold: of top-1 localization.
        steps: number of thresholds to choose the best from.
        show: number of images to return for a figure, evenly spread.
        tick: progress callback.

    Returns:
        Two values. The first one has the scores of
        :class:`mixplug.metrics.localization.Localization` in percent, thresholds unscaled,
        ``images`` with the box of each image, and the settings. The second one has the images for
        the figure.

    Raises:
        ValueError: invalid settings, no image, or maps that are not finite.
    """
    scores = Localization(threshold, steps)
    wanted = {(2 * i + 1) * total // (2 * show) for i in range(show)}
    images: list[dict[str, Any]] = []
    shown: list[LocalizedImage] = []
    tick(0, total, "localizing")
    for batch in batches:
        with torch.no_grad():
            logits, maps = heat_maps(batch.inputs, batch.labels)
        heat = heat_of_map(maps, (batch.inputs.shape[-2], batch.inputs.shape[-1])).cpu()
        labels, predicted = batch.labels.cpu(), logits.argmax(1).cpu()
        located = scores.update(heat, batch.boxes, predicted == labels)
        for i, one in enumerate(located):
            if len(images) in wanted:
                image = batch.pixels[i], heat[i], one.box, batch.boxes[i], one.iou
                shown.append(LocalizedImage(*image, int(labels[i]), int(predicted[i])))
            images.append(_entry(batch.names[i], one, bool(predicted[i] == labels[i])))
        tick(len(images), total, "localizing")
    values = {
        name: value if name.endswith("_threshold") else 100 * value
        for name, value in scores.compute().items()
    }
    settings = {"threshold": threshold, "steps": steps, "count": len(images)}
    return {**values, **settings, "images": images}, shown


def _entry(name: str, one: Located, right: bool) -> dict[str, Any]:
    box = None if one.box is None else one.box.tolist()
    return {"name": name, "right": right, "iou": one.iou, "box": box}


__getattr__ = old_names(__name__)
