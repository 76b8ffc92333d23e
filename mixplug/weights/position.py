"""Position embeddings and biases of another grid."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.optional import optional

Grid = tuple[int, int]
_TOKENS = 3  # rows of a table that are no offset: of, to and from the class token


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


def resize_biases(table: Tensor, source: Grid | None, target: Grid) -> Tensor:
    """Biases of relative positions of a BEiT for another grid, by timm.

    The nearer an offset, the finer it is resolved: offsets of the old grid lie in a geometric
    sequence on the new one, and cubic splines go through them, as in BEiT's fine-tuning.

    Args:
        table: (N, h), N = (2 rows - 1)(2 columns - 1) + 3, the last 3 of the class token.
        source: (rows, columns) of the patches; None is a square.
        target: (rows, columns) wanted.

    Returns:
        (N', h) in the dtype of ``table``, which is returned itself for an equal grid.

    Raises:
        ImportError: timm is not installed.
        ValueError: ``table`` is not of this grid, or of no square.
    """
    offsets = len(table) - _TOKENS
    if source is None:
        side = (math.isqrt(max(0, offsets)) + 1) // 2
        source = (side, side)
    if (2 * source[0] - 1) * (2 * source[1] - 1) != offsets:
        raise ValueError(
            f"A table of {len(table)} biases is not of a grid of {source[0]} x {source[1]} "
            f"patches: say which, as (rows, columns)."
        )
    if tuple(source) == tuple(target):
        return table
    size = ((2 * target[0] - 1) * (2 * target[1] - 1) + _TOKENS, table.shape[1])
    layers = optional("timm.layers", "timm", "Resizing biases of relative positions")
    resized: Tensor = layers.resize_rel_pos_bias_table(table, target, size, source)
    return resized


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
