"""Feature maps of two images, mixed with and without alignment (Figures 3.1 to 3.3).

Letters: L values of λ, A and A' the maps of two images x and x', N = H W positions of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.functional.aligned import align, assignment, correspondences, mix
from mixplug.optional import optional
from mixplug.stages import Stages
from mixplug.viz.axes import hide_axes
from mixplug.viz.embedding import COLORS

# Four ways to mix two maps, by name. λ weighs the first operand, which is A' in (3.13).
WAYS = {
    "not aligned": "mix(A, A')",
    "A aligned to A' (3.12)": "mix(A, Ã)",
    "not aligned, swapped": "mix(A', A)",
    "A' aligned to A (3.13)": "mix(A', Ã')",
}
_GAP = 0.5  # gap between the two images of correspondences, in widths
# Offset of the second image downwards, in heights, so that lines of one row do not overlap.
_LOWER = 0.45


@torch.no_grad()
def interpolations(
    stages: Stages,
    decode: Callable[[Tensor], Tensor],
    pair: Tensor,
    lam: Tensor,
    at: str | None = None,
    prepare: Callable[[Tensor], Tensor] = lambda a: a,
    **options: Any,
) -> dict[str, Tensor]:
    r"""Images decoded from the maps of two images, mixed at several λ in the four ways of ``WAYS``.

        D(f(λ A + (1 - λ) A')),   D(f(λ A + (1 - λ) A~)) (3.12),   and both for A', A (3.13)

    Args:
        stages: the network, in evaluation mode.
        decode: D, maps embeddings (L, D) to images (L, C, H, W).
        pair: x and x', (2, C, H, W).
        lam: (L,) in [0, 1], the weight of the first operand.
        at: name of the module whose output is A; None uses the default of ``stages``.
        prepare: function that is applied to the maps first, such as pooling.
        **options: eps, iters, normalize_cost, tol of :func:`mixplug.functional.align`.

    Returns:
        (L, C, H, W) for each of ``WAYS``.

    Raises:
        ValueError: not two images; see :func:`mixplug.functional.align`.
    """
    if len(pair) != 2:
        raise ValueError(f"interpolations needs two images (2, C, H, W), got {tuple(pair.shape)}.")

    def mixed(t: Tensor, first: Tensor, second: Tensor) -> Tensor:
        shape = (len(lam), *t.shape[1:])
        return mix(first.expand(shape), second.expand(shape), lam.to(t.device))

    def maps(a: Tensor, swap: bool, aligned: bool) -> Tensor:
        a = prepare(a)
        first, second = (a[1:], a[:1]) if swap else (a[:1], a[1:])
        if aligned:
            second = align(a[:1], a[1:], **options)[int(swap)]
        return mixed(a, first, second)

    def prefix(p: Tensor, swap: bool) -> Tensor:
        return mixed(p, p[1:], p[:1]) if swap else mixed(p, p[:1], p[1:])

    found = {}
    for name, (swap, aligned) in zip(
        WAYS, ((False, False), (False, True), (True, False), (True, True)), strict=True
    ):
        edit = partial(maps, swap=swap, aligned=aligned)
        out = stages(pair, features=edit, prefix=partial(prefix, swap=swap), at=at)
        found[name] = decode(out.embedding)
    return found


@torch.no_grad()
def transport(
    stages: Stages,
    pair: Tensor,
    at: str | None = None,
    prepare: Callable[[Tensor], Tensor] = lambda a: a,
    **options: Any,
) -> tuple[Tensor, tuple[int, int]]:
    """R between the maps of two images, (N, N), rows sum to 1, and the grid (H, W) of a map.

    Arguments are those of :func:`interpolations`.
    """
    a = prepare(stages.with_map(pair, at)[1])
    return assignment(a[:1], a[1:], **options)[0][0], (a.shape[-2], a.shape[-1])


def figure(
    originals: Tensor,
    rows: Mapping[str, Tensor],
    lam: Sequence[float],
    path: Path,
    title: str = "",
) -> None:
    """Draw and save the four ways as rows, λ from left to right, with the originals at the ends.

    The first operand is at the side of λ = 1: x in the upper two rows, x' in the lower two.

    Args:
        originals: x and x', (2, H, W, 3) in [0, 1].
        rows: (L, H, W, 3) in [0, 1] for each of ``WAYS``.
        lam: L values, ascending.
        path: path of the PNG.
        title: title of the figure.
    """
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    columns, side = len(lam), 1.15
    fig = plt.figure(
        figsize=(side * (columns + 2) + 2.0, side * len(rows) + 1.1), layout="constrained"
    )
    grid = fig.add_gridspec(len(rows), columns + 2)
    names = ("x", "x'")
    for number, (name, images) in enumerate(rows.items()):
        for place, image in enumerate(images, 1):
            cell = _picture(fig.add_subplot(grid[number, place]), image)
            if number % 2 == 0:
                cell.set_title(f"λ = {lam[place - 1]:.2g}", fontsize=9)
            if place == 1:
                cell.set_ylabel(
                    f"{name}\n{WAYS[name]}", rotation=0, ha="right", va="center", fontsize=9
                )
    for top in range(0, len(rows), 2):
        first = int(top >= 2)
        for column, which in ((0, 1 - first), (columns + 1, first)):
            cell = _picture(fig.add_subplot(grid[top : top + 2, column]), originals[which])
            cell.set_title(names[which], fontsize=11)
    fig.suptitle(title, fontsize=10)
    fig.savefig(path, dpi=140)
    plt.close(fig)


def lines(
    originals: Tensor,
    plan: Tensor,
    grid: tuple[int, int],
    path: Path,
    title: str = "",
    top: int = 2,
) -> None:
    """Draw and save the correspondences between A and A' as lines between the two images.

    The width of a line shows its share r_ij of the position's mass. From each position, at most
    ``top`` lines are drawn: the strongest ones, if they have at least half of the largest share.

    Args:
        originals: x and x', (2, H, W, 3) in [0, 1].
        plan: R, (N, N), rows sum to 1.
        grid: (rows, columns) of the N positions.
        path: path of the PNG.
        title: title of the figure.
        top: largest number of lines from a position.
    """
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    effects = optional("matplotlib.patheffects", "demo", "The figure")
    height, width = originals.shape[1:3]
    aspect = width / height
    wide, high = (2 + _GAP) * aspect, 1 + _LOWER
    fig, axes = plt.subplots(figsize=(3.6 * wide, 3.6 * high + 0.5), layout="constrained")
    places = ((0.0, 0.0), ((1 + _GAP) * aspect, _LOWER))
    for (across, down), image in zip(places, originals, strict=True):
        extent = (across, across + aspect, down + 1, down)
        axes.imshow(image.numpy(), extent=extent, interpolation="nearest")
    axes.text(0, 0, "x ", ha="right", va="top", fontsize=12)
    axes.text(wide, _LOWER - 0.01, "x'", ha="right", va="bottom", fontsize=12)
    index, share = correspondences(plan.cpu(), min(top, plan.shape[-1]))
    for i, (found, parts) in enumerate(zip(index.tolist(), share.tolist(), strict=True)):
        color = COLORS[(i % grid[1] + 3 * (i // grid[1])) % len(COLORS)]
        start = _center(i, grid, aspect, places[0])
        for j, part in zip(found, parts, strict=True):
            if part > 0:
                end = _center(j, grid, aspect, places[1])
                thick = 0.6 + 3.4 * part
                axes.plot(
                    *zip(start, end, strict=True), color=color, linewidth=thick, marker="o",
                    markersize=5, markeredgecolor="w", markeredgewidth=0.7,
                    path_effects=[effects.Stroke(linewidth=thick + 1.4, foreground="w"),
                                  effects.Normal()],
                )  # fmt: skip
    axes.set(xlim=(-0.1, wide), ylim=(high, 0), aspect="equal")
    axes.axis("off")
    axes.set_title(title, fontsize=10, wrap=True)
    fig.savefig(path, dpi=140)
    plt.close(fig)


def _center(
    i: int, grid: tuple[int, int], aspect: float, corner: tuple[float, float]
) -> tuple[float, float]:
    """Center (x, y) of a position in an image with this corner."""
    across, down = corner
    return (
        across + (i % grid[1] + 0.5) / grid[1] * aspect,
        down + (i // grid[1] + 0.5) / grid[0],
    )


def _picture(cell: Any, image: Tensor) -> Any:
    cell.imshow(image.numpy(), interpolation="nearest")
    hide_axes(cell)
    return cell
