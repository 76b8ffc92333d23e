"""Predicted boxes in red, true boxes in green, and the heat maps (Figure 3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mixplug.metrics.localization import LocalizedImage
from mixplug.optional import optional

PREDICTED, TRUE = "#e6001f", "#00c853"
_COLUMNS = 8
_LETTERS = 22  # characters per line of a caption
_COVER = 0.5  # opacity of the map over the image


def figure(
    shown: Sequence[LocalizedImage], class_names: Sequence[str], path: Path, title: str = ""
) -> None:
    """Draw and save a grid: each image with its boxes, and below it the map over the image.

    A caption has the class and the overlap (IoU) of the boxes, and the predicted class if it is
    wrong. True boxes are dashed, so they can be distinguished without colors.

    Args:
        shown: images.
        class_names: one per label.
        path: path of the PNG.
        title: title of the figure.

    Raises:
        ValueError: no image.
        ImportError: matplotlib is not installed.
    """
    if not shown:
        raise ValueError("There is no image to show.")
    plt = optional("matplotlib.pyplot", "card", "The figure")
    bands = -(-len(shown) // _COLUMNS)
    columns = -(-len(shown) // bands)
    fig, axes = plt.subplots(
        2 * bands,
        columns,
        figsize=(1.75 * columns + 0.2, 4.2 * bands + 0.8),
        squeeze=False,
        layout="constrained",
    )
    for cell in axes.flat:
        cell.set_axis_off()
    for number, one in enumerate(shown):
        band, column = divmod(number, columns)
        above, below = axes[2 * band, column], axes[2 * band + 1, column]
        for cell in (above, below):
            cell.imshow(one.pixels.permute(1, 2, 0).numpy())
        below.imshow(one.heat.numpy(), cmap="jet", vmin=0, vmax=1, alpha=_COVER)
        for cell in (above, below):
            _boxes(cell, one)
        above.set_title(_caption(one, class_names), fontsize=7)
    handles = [
        plt.Line2D([], [], color=color, linestyle=style, label=label)
        for color, style, label in ((PREDICTED, "-", "predicted"), (TRUE, "--", "true"))
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    fig.suptitle(title, fontsize=9)
    fig.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.1)
    plt.close(fig)


def _boxes(cell: Any, one: LocalizedImage) -> None:
    for truth in one.truths:
        _box(cell, truth, TRUE, "--")
    if one.box is not None:
        _box(cell, one.box, PREDICTED, "-")


def _box(cell: Any, box: Tensor, color: str, style: str) -> None:
    """Draw a box around its pixels; the center of an image's first pixel is at 0."""
    left, top, right, bottom = (float(side) - 0.5 for side in box)
    patches = optional("matplotlib.patches", "card", "The figure")
    cell.add_patch(
        patches.Rectangle(
            (left, top), right - left, bottom - top, fill=False, edgecolor=color, linestyle=style,
            linewidth=1.8, clip_on=False,
        )
    )  # fmt: skip


def _caption(one: LocalizedImage, class_names: Sequence[str]) -> str:
    lines = [_shorten(class_names[one.label]), f"IoU {one.iou:.2f}", " "]
    if one.predicted != one.label:
        lines[-1] = f"predicted: {_shorten(_name(one.predicted, class_names))}"
    return "\n".join(lines)


def _name(label: int, class_names: Sequence[str]) -> str:
    """Name of a class of the network; the data may have fewer classes."""
    return class_names[label] if label < len(class_names) else str(label)


def _shorten(name: str) -> str:
    name = name.replace("_", " ")
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
