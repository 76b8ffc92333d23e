"""What the tensors of a vision transformer say about it: keys of timm's, and a description."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mixplug.weights.names import BEIT, kind_of, layout_of, translate
from mixplug.weights.position import Grid, prefix_tokens, square_grid

TIMM = "timm:"
_NEEDED = {"patch_embed.proj.weight": 4, "pos_embed": 3, "blocks.0.mlp.fc1.weight": 2}  # axes
_HEAD = 64  # channels of a head in nearly all vision transformers


def keys_of(
    state: Mapping[str, Tensor], heads: int | None = None, grid: Grid | None = None
) -> dict[str, Any]:
    """Keys of timm's VisionTransformer that fit tensors with timm's names.

    Args:
        state: without the classifier.
        heads: None takes what the norms of queries say, or one per 64 channels.
        grid: (rows, columns) of the patches; None is a square.

    Raises:
        ValueError: tensors that every ViT has are not there; the grid is no square and not given;
            heads do not divide the width.
    """
    lacking = [
        name for name, axes in _NEEDED.items() if name not in state or state[name].dim() != axes
    ]
    if lacking:
        raise ValueError(
            f"No ViT for images is without these, or has them in another form: {lacking}."
        )
    width, channels, *patch = state["patch_embed.proj.weight"].shape
    norm = state.get("blocks.0.attn.q_norm.weight")
    heads = _heads(width, _HEAD if norm is None else len(norm), heads)
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    prefix = prefix_tokens(state)
    grid, no_embed_class = _grid(state["pos_embed"].shape[1], prefix, grid)
    scale = state.get("blocks.0.ls1.gamma")
    averaged = "fc_norm.weight" in state  # timm has it where tokens are averaged before the norm
    return {
        "img_size": (grid[0] * patch[0], grid[1] * patch[1]),
        "patch_size": tuple(patch),
        "in_chans": channels,
        "embed_dim": width,
        "depth": len(blocks),
        "num_heads": heads,
        "mlp_ratio": (len(state["blocks.0.mlp.fc1.weight"]) + 0.5) / width,  # timm rounds down
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "qk_norm": norm is not None,
        "init_values": None if scale is None else 1.0,  # the checkpoint's follow
        "class_token": "cls_token" in state,
        "no_embed_class": no_embed_class,
        "reg_tokens": prefix - ("cls_token" in state),
        "pre_norm": "norm_pre.weight" in state,
        "final_norm": "norm.weight" in state or averaged,
        "fc_norm": averaged,
        "global_pool": "token" if "cls_token" in state and not averaged else "avg",
        "num_classes": 0,
        "dynamic_img_size": True,
    }


def described(
    backbone: Mapping[str, Tensor], grid: Grid | None = None, heads: int | None = None
) -> str:
    """In words what network tensors are of, as far as their shapes, ``grid`` and ``heads`` say."""
    layout = layout_of(backbone)
    if layout is None:
        return "no vision transformer of timm, mmpretrain, mmseg or DINO"
    if kind_of(backbone) == BEIT:
        return f"a BEiT named as in {layout}"
    try:
        keys = keys_of(translate(backbone, layout, "timm")[0], heads, grid)
    except ValueError as error:
        return f"a vision transformer named as in {layout}. {error}"
    rows, columns = (s // p for s, p in zip(keys["img_size"], keys["patch_size"], strict=True))
    return (
        f"a vision transformer named as in {layout}, width {keys['embed_dim']}, depth "
        f"{keys['depth']}, patches of {keys['patch_size'][0]} x {keys['patch_size'][1]} pixels in "
        f"a grid of {rows} x {columns}, {keys['reg_tokens']} registers; "
        f"{keys['num_heads']} heads, if they have {keys['embed_dim'] // keys['num_heads']} channels"
    )


def _heads(width: int, channels: int, heads: int | None) -> int:
    if heads is None and not width % channels:
        return width // channels
    if heads is None or heads < 1 or width % heads:
        said = f"{heads} heads" if heads is not None else f"heads of {channels} channels"
        raise ValueError(
            f"A width of {width} cannot be split into {said}: say how many heads there are, by "
            f"heads=... or, in a command, --heads; no shape tells."
        )
    return heads


def _grid(positions: int, prefix: int, grid: Grid | None) -> tuple[Grid, bool]:
    """The grid of the patches, and whether the prefix tokens have no positions."""
    if grid is not None:
        return grid, positions == grid[0] * grid[1] and prefix > 0
    if prefix and math.isqrt(positions) ** 2 == positions:  # or, rarely, the other and no square
        return square_grid(positions), True
    return square_grid(positions - prefix), False
