"""Attention within windows, for images so large that global attention is too expensive.

Letters: B images, N patches in a grid, P prefix tokens, D width, w side of a window in patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]


def to_windows(
    tokens: Tensor, grid: Grid, window: int, prefix: int = 0
) -> tuple[Tensor, Tensor | None]:
    """Cut images into windows of w x w patches, each with the prefix tokens of its image.

    Windows at the right and lower border are padded with zeros, which the mask excludes.

    Args:
        tokens: (B, P + N, D), prefix tokens first.
        grid: (rows, columns) of the N patches.
        window: w >= 1.
        prefix: P.

    Returns:
        Windows (B W, P + w², D), grouped by image; and a mask (B W, 1, 1, P + w²) bool, False at
        padding, or None without padding.

    Raises:
        ValueError: the number of tokens does not fit the grid, or w < 1.
    """
    rows, columns = grid
    if window < 1 or tokens.dim() != 3 or tokens.shape[1] != prefix + rows * columns:
        raise ValueError(
            f"to_windows needs window >= 1 and tokens (B, {prefix} + {rows} x {columns}, D), got "
            f"{window} and {tuple(tokens.shape)}."
        )
    images = tokens.shape[0]
    down, right = -rows % window, -columns % window
    patches = tokens[:, prefix:].unflatten(1, grid)
    cut = _cut(F.pad(patches, (0, 0, 0, right, 0, down)), window)  # (B W, w², D)
    windows = cut.shape[0] // images
    copies = tokens[:, :prefix].repeat_interleave(windows, 0)
    mask = None
    if down or right:
        real = F.pad(
            tokens.new_ones(1, rows, columns, 1, dtype=torch.bool), (0, 0, 0, right, 0, down)
        )
        inside = _cut(real, window)[..., 0]
        seen = torch.cat([inside.new_ones(windows, prefix), inside], 1)
        mask = seen.repeat(images, 1)[:, None, None]
    return torch.cat([copies, cut], 1), mask


def from_windows(windows: Tensor, grid: Grid, window: int, prefix: int = 0) -> Tensor:
    """Join windows into images; prefix tokens are averaged over the windows of an image.

    Args:
        windows: (B W, P + w², D), the output of :func:`to_windows`.
        grid: (rows, columns) of the N patches.
        window: w.
        prefix: P.

    Returns:
        (B, P + N, D).
    """
    high, wide = -(-grid[0] // window), -(-grid[1] // window)
    patches = windows[:, prefix:].unflatten(1, (window, window)).unflatten(0, (-1, high, wide))
    whole = patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, high w, wide w, D)
    kept = whole[:, : grid[0], : grid[1]].flatten(1, 2)
    shared = windows[:, :prefix].unflatten(0, (-1, high * wide)).mean(1)
    return torch.cat([shared, kept], 1)


def _cut(patches: Tensor, window: int) -> Tensor:
    """(B, high w, wide w, D) to (B W, w², D)."""
    tiles = patches.unflatten(2, (-1, window)).unflatten(
        1, (-1, window)
    )  # (B, high, w, wide, w, D)
    return tiles.transpose(2, 3).flatten(3, 4).flatten(0, 2)
