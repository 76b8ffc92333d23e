"""Position embeddings of another grid."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype

Grid = tuple[int, int]


def resize_positions(
    positions: Tensor, source: Grid, target: Grid, antialias: bool = True
) -> Tensor:
    """Position embeddings of a grid of patches for another one, by bicubic interpolation.

    What stands before those of the patches (class token, registers) is kept. Antialiasing is as in
    timm, so that weights resized once equal those that timm resizes in every forward. DINO and
    mmpretrain do without, and torch's cubic is then another one, where the grid grows too.

    Args:
        positions: (1, P + N, D), the P first of no patch; computed in float32, or float64 if given.
        source: (rows, columns) of the N patches.
        target: (rows, columns) wanted, of N' patches.
        antialias: whether to smooth before a grid is made smaller.

    Returns:
        (1, P + N', D) in the dtype of ``positions``, which is returned itself for an equal grid.

    Raises:
        ValueError: ``positions`` do not have this grid, or a grid without patches is wanted.
    """
    count = source[0] * source[1]
    prefix = positions.shape[1] - count if positions.dim() == 3 else -1
    if prefix < 0 or min(*source, *target) < 1:
        raise ValueError(
            f"resize_positions needs positions (1, P + N, D) of N = {source[0]} x {source[1]} "
            f"patches for a grid of {target[0]} x {target[1]}, got {tuple(positions.shape)}."
        )
    if tuple(source) == tuple(target):
        return positions
    first, patches = positions.split([prefix, count], dim=1)
    image = (
        patches.to(exact_dtype(patches)).unflatten(1, source).permute(0, 3, 1, 2)
    )  # (1, D, rows, columns)
    image = F.interpolate(image, target, mode="bicubic", antialias=antialias)
    return torch.cat([first, image.flatten(2).mT.to(positions.dtype)], dim=1)


def square_grid(patches: int) -> Grid:
    """The grid of a square image.

    Raises:
        ValueError: there is none of so many patches.
    """
    side = math.isqrt(max(0, patches))
    if side < 1 or side * side != patches:
        raise ValueError(
            f"{patches} position embeddings are of no square grid: say which, as (rows, columns)."
        )
    return side, side


def prefix_tokens(state: Mapping[str, Tensor]) -> int:
    """P of a ViT whose tensors have timm's names: its class token and its registers."""
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    return ("cls_token" in state) + registers
