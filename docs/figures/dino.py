"""DINO: the two large and six small crops of a frame, and what teacher and student see of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import FIRST, SECOND, WIDTH, plt, save, show

from mixplug.data import MultiCrop, shipped_clip
from mixplug.video import open_reader

TIME, KEY = 4.9, 5
VIEWS = MultiCrop()


def draw(path: Path, quick: bool) -> None:
    """A frame of a street with the places of its views, and the views after augmentation."""
    with open_reader(shipped_clip("bikes")) as reader:
        frame = reader.read([TIME])
    height, width = frame.shape[-2:]
    views = VIEWS.draw(height, width, KEY)
    crops = VIEWS(frame, KEY)
    fig = plt.figure(figsize=(WIDTH, 4.4), layout="constrained")
    above, middle, below = fig.subfigures(3, 1, height_ratios=(1.9, 2.1, 1))
    cell = above.subplots()
    show(cell, frame[0])
    for number, view in enumerate(views):
        color = FIRST if number < 2 else SECOND
        place = (view.left - 0.5, view.top - 0.5)
        cell.add_patch(
            plt.Rectangle(
                place, view.width, view.height, fill=False, edgecolor=color, linewidth=1.2
            )
        )
    large = middle.subplots(1, 2)
    for axes, crop, name in zip(large, crops["large"], ("large 1", "large 2"), strict=True):
        show(axes, crop[0], f"{name}: teacher, student")
        _frame(axes, FIRST)
    below.suptitle("small 1 to 6: student", fontsize=8.5)
    for axes, crop in zip(below.subplots(1, len(crops["small"])), crops["small"], strict=True):
        show(axes, crop[0])
        _frame(axes, SECOND)
    save(fig, path, colors=64, dpi=160)


def _frame(axes: Any, color: str) -> None:
    for edge in axes.spines.values():
        edge.set(visible=True, color=color, linewidth=1.5)
