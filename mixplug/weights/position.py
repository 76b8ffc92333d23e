"""Resize position embeddings and relative position biases to another grid."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.optional import optional

Grid = tuple[int, int]
_TOKENS = 3  # last rows of a table, for pairs with the class token: to, from, and itself


def resize_positions(
    positions: Tensor, source: Grid, target: Grid, antialias: bool = True
) -> Tensor:
    """Resize position embeddings from one grid of patches to another, by bicubic interpolation.

    Embeddings before those of the patches (class token, registers) are not changed. Antialiasing is
    the same as in timm, so weights that are resized once equal those that timm resizes in every
    forward pass. DINO and mmpretrain do not antialias; then torch uses another cubic kernel, so
    results also differ if the grid grows.

    Args:
        positions: (1, P + N, D), the first P belong to no patch; computed in float32, or float64 if
            given.
        source: (rows, columns) of the N patches.
        target: (rows, columns) of the N' patches of the result.
        antialias: whether to smooth before the grid is made smaller.

    Returns:
        (1, P + N', D) in the dtype of ``positions``; for an equal grid ``positions`` itself.

    Raises:
        ValueError: ``positions`` do not have the grid ``source``, or a grid has no patches.
    """
    count = source[0] * source[1]
    prefix = positions.shape[1] - count if positions.dim() == 3 else -1
    if prefix < 0 or min(*source, *target) < 1:
        raise ValueError(
            f"resize_positions needs positions (1, P + N, D) with N = {source[0]} x {source[1]} "
            f"patches and a target grid >= 1 x 1, got {tuple(positions.shape)} and a target of "
            f"{target[0]} x {target[1]}."
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
    """Resize the relative position biases of a BEiT to another grid, with timm.

    The smaller an offset, the finer its resolution: the offsets of the old grid form a geometric
    sequence on the new grid, and cubic splines interpolate between them, as in BEiT's fine-tuning.

    Args:
        table: (N, h), N = (2 rows - 1)(2 columns - 1) + 3, the last 3 for the class token.
        source: (rows, columns) of the patches; None means a square.
        target: (rows, columns) of the result.

    Returns:
        (N', h) in the dtype of ``table``; for an equal grid ``table`` itself.

    Raises:
        ImportError: timm is not installed.
        ValueError: ``table`` does not have the grid ``source``, or no square grid.
    """
    offsets = len(table) - _TOKENS
    if source is None:
        side = (math.isqrt(max(0, offsets)) + 1) // 2
        source = (side, side)
    if (2 * source[0] - 1) * (2 * source[1] - 1) != offsets:
        raise ValueError(
            f"A table of {len(table)} biases does not fit a grid of {source[0]} x {source[1]} "
            f"patches. Pass the grid as (rows, columns)."
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
        ValueError: the number of patches is not a square.
    """
    side = math.isqrt(max(0, patches))
    if side < 1 or side * side != patches:
        raise ValueError(
            f"{patches} position embeddings do not form a square grid. Pass the grid as (rows, "
            f"columns)."
        )
    return side, side


def prefix_tokens(state: Mapping[str, Tensor]) -> int:
    """Number P of the tokens before a ViT's patches, from tensors with timm's names.

    They are the class token, the distillation token of a DeiT, and registers.
    """
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    return ("cls_token" in state) + ("dist_token" in state) + registers
