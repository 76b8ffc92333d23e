"""AlignMixup: two photographs, which parts correspond, and their mixtures with and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from common import WIDTH, photographs, plt, save, show
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from mixplug.functional import align, assignment, correspondences, mix
from mixplug.viz.embedding import COLORS

GRID, COARSE = (40, 60), (4, 6)  # positions of the map that is aligned, and of the lines
SCALE = 4  # of colors: ε = 0.1 is in squares of these units
LAM = 0.5
SHOWN = (2, 8, 13, 20, 17)  # positions of x whose lines are drawn, in rows


def draw(path: Path, quick: bool) -> None:
    """The map A is here the mean color of every patch, so that what alignment does can be seen."""
    images = photographs(160, 240)
    a = F.interpolate(images, (8, 12) if quick else GRID, mode="area") * SCALE
    first, second = a[:1], a[1:]
    first_aligned, second_aligned = align(first, second)
    fig = plt.figure(figsize=(WIDTH, 4.0), layout="constrained")
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(1.5, 1.5, 1.05))
    _correspondences(top, images)
    _row(middle, {"Ã: A aligned to A'": first_aligned, "Ã': A' aligned to A": second_aligned})
    mixed = {
        "not aligned": mix(first, second, LAM),
        "mode A": mix(first, first_aligned, LAM),
        "mode A'": mix(second, second_aligned, LAM),
    }
    _row(bottom, {f"{name}, λ = {LAM}": maps for name, maps in mixed.items()})
    save(fig, path)


def _row(fig: Any, maps: dict[str, Tensor]) -> None:
    for axes, (name, a) in zip(fig.subplots(1, len(maps)), maps.items(), strict=True):
        show(axes, a[0] / SCALE, name, interpolation="nearest")


def _correspondences(fig: Any, images: Tensor) -> None:
    """A line from each position of x to the one of x' that has most of its mass."""
    axes = fig.subplots(1, 2)
    for cell, image, name in zip(axes, images, ("x", "x'"), strict=True):
        show(cell, image, name)
    maps = F.interpolate(images, COARSE, mode="area") * SCALE
    index, _ = correspondences(assignment(maps[:1], maps[1:])[0][0], top=1)
    height, width = images.shape[-2:]
    rows, columns = COARSE

    def center(i: int) -> tuple[float, float]:
        return (i % columns + 0.5) * width / columns, (i // columns + 0.5) * height / rows

    for number, i in enumerate(SHOWN):
        for color, thick, style in (("w", 2.6, "-"), (COLORS[number], 1.3, "-|>")):
            line = ConnectionPatch(
                center(i), center(int(index[i, 0])), "data", "data", axesA=axes[0], axesB=axes[1],
                color=color, linewidth=thick, arrowstyle=style, shrinkA=0, shrinkB=0,
            )  # fmt: skip
            fig.add_artist(line)
