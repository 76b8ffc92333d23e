"""Attention maps of several networks on the same images (Figure 5.6)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.optional import optional
from mixplug.viz.axes import hide_axes
from mixplug.viz.labels import wrap_name

_STRENGTH = 0.65  # opacity of the color where attention is strongest
_LINE = 30  # characters per line of a row's label


def overlay(images: Tensor, maps: Tensor) -> Tensor:
    """Color images by attention: no color where it is 0, most where it has the image's maximum.

    Attention is resized to the image bilinearly and divided by its maximum.

    Args:
        images: (N, H, W, 3) uint8, RGB.
        maps: (N, h, w) >= 0, such as the output of :func:`mixplug.functional.attention_map`.

    Returns:
        (N, H, W, 3) uint8.

    Raises:
        ValueError: not one map per image, or negative attention.
    """
    if maps.dim() != 3 or len(maps) != len(images) or images.shape[-1] != 3:
        raise ValueError(
            f"overlay needs images (N, H, W, 3) and maps (N, h, w), got {tuple(images.shape)} and "
            f"{tuple(maps.shape)}."
        )
    if bool((maps < 0).any()):
        raise ValueError(f"overlay needs attention >= 0, got {float(maps.min()):g}.")
    size = images.shape[1:3]
    found = F.interpolate(maps[:, None].float().cpu(), size, mode="bilinear")[:, 0]
    found = found / found.amax((1, 2), keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
    colormap = optional("matplotlib", "demo", "The figure").colormaps["turbo"]
    paint = torch.from_numpy(colormap(found.numpy())[..., :3]).float()
    cover = _STRENGTH * found[..., None]
    return (255 * ((1 - cover) * (images.cpu() / 255) + cover * paint)).round().byte()


def figure(images: Tensor, maps: Mapping[str, Tensor], path: Path, title: str = "") -> None:
    """Draw and save the images in the first row, and one row per network with its attention.

    Args:
        images: (N, H, W, 3) uint8, RGB.
        maps: (N, h, w) >= 0 for each network.
        path: path of the PNG.
        title: title of the figure.

    Raises:
        ValueError: no network; see :func:`overlay`.
    """
    if not maps:
        raise ValueError("There is no attention to draw.")
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    rows = {"image": images.cpu(), **{name: overlay(images, found) for name, found in maps.items()}}
    names = [wrap_name(name, _LINE) for name in rows]
    aside = 0.075 * max(len(line) for name in names for line in name.split("\n")) + 0.2
    side = 1.2
    high = side * images.shape[1] / images.shape[2]
    fig, grid = plt.subplots(
        len(rows),
        len(images),
        figsize=(side * len(images) + aside, max(high, 0.5) * len(rows) + 0.3),
        squeeze=False,
        layout="constrained",
    )
    for cells, name, pictures in zip(grid, names, rows.values(), strict=True):
        for cell, picture in zip(cells, pictures, strict=True):
            cell.imshow(picture.numpy())
            hide_axes(cell)
        cells[0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
    fig.suptitle(title, fontsize=10)
    fig.savefig(path, dpi=140)
    plt.close(fig)
