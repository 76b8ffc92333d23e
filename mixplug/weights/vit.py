"""Derive a vision transformer's settings from the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mixplug.optional import optional
from mixplug.renamed import old_names
from mixplug.weights.dialects import dialect_of, in_timms_names
from mixplug.weights.names import BEIT, kind_of, layout_of, translate
from mixplug.weights.position import Grid, prefix_tokens, square_grid

TIMM = "timm:"
KNOWN = "timm, mmpretrain, mmseg, DINO, DINOv2 or Hugging Face's transformers"
_NEEDED = {"patch_embed.proj.weight": 4, "pos_embed": 3, "blocks.0.mlp.fc1.weight": 2}  # axes
_HEAD = 64  # channels per head in nearly all vision transformers


def keys_of(
    state: Mapping[str, Tensor], heads: int | None = None, grid: Grid | None = None
) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer that fit tensors with timm's names.

    Args:
        state: tensors without the classifier.
        heads: number of attention heads; None derives it from the norms of queries, or assumes 64
            channels per head.
        grid: (rows, columns) of the patches; None means a square.

    Raises:
        ValueError: tensors that every ViT has are missing, the grid is not square and not given, or
            the width is not a multiple of the number of heads.
    """
    state = _with_one_first_layer(state)
    wrong = [
        name for name, axes in _NEEDED.items() if name not in state or state[name].dim() != axes
    ]
    if wrong:
        raise ValueError(
            f"A ViT for images needs these tensors, but they are missing or have another number "
            f"of axes: {wrong}."
        )
    width, channels, *patch = state["patch_embed.proj.weight"].shape
    norm = state.get("blocks.0.attn.q_norm.weight")
    heads = _heads(width, _HEAD if norm is None else len(norm), heads)
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    prefix = prefix_tokens(state)
    grid, no_embed_class = _grid(state["pos_embed"].shape[1], prefix, grid)
    scale = state.get("blocks.0.ls1.gamma")
    averaged = "fc_norm.weight" in state  # timm has it if tokens are averaged before the norm
    distilled = "dist_token" in state  # timm's VisionTransformerDistilled, with the same arguments
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
        "init_values": None if scale is None else 1.0,  # replaced by the checkpoint's
        "class_token": "cls_token" in state,
        "no_embed_class": no_embed_class,
        "reg_tokens": prefix - ("cls_token" in state) - distilled,
        "pre_norm": "norm_pre.weight" in state,
        "final_norm": "norm.weight" in state or averaged,
        "fc_norm": averaged,
        "global_pool": "token" if "cls_token" in state and not averaged else "avg",
        "num_classes": 0,
        "dynamic_img_size": True,
        **_gated(state),
    }


def _with_one_first_layer(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """For timm's SwiGLU, whose first layer is in two parts, also the part that has its width."""
    first = "blocks.0.mlp.fc1_g.weight"
    return {**state, "blocks.0.mlp.fc1.weight": state[first]} if first in state else state


def _gated(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments for a SwiGLU, as in DINOv2's ViT-g: the first layer is twice as wide."""
    if "blocks.0.mlp.fc1_g.weight" in state:
        layers = optional("timm.layers", "timm", "A vision transformer with SwiGLU")
        return {"mlp_layer": layers.SwiGLU, "act_layer": nn.SiLU}
    last = state.get("blocks.0.mlp.fc2.weight")
    if (
        last is None
        or last.dim() != 2
        or len(state["blocks.0.mlp.fc1.weight"]) != 2 * last.shape[1]
    ):
        return {}
    layers = optional("timm.layers", "timm", "A vision transformer with SwiGLU")
    return {"mlp_layer": layers.SwiGLUPacked, "act_layer": nn.SiLU}


def describe(
    backbone: Mapping[str, Tensor], grid: Grid | None = None, heads: int | None = None
) -> str:
    """Describe the network of some tensors, as far as shapes, ``grid`` and ``heads`` tell."""
    written = dialect_of(backbone) or layout_of(backbone)
    if written is None:
        return f"no vision transformer of {KNOWN}"
    if kind_of(backbone) == BEIT:
        return f"a BEiT with the names of {written}"
    try:
        state, _ = in_timms_names(backbone)
        keys = keys_of(translate(state, str(layout_of(state)), "timm")[0], heads, grid)
    except ValueError as error:
        return f"a vision transformer with the names of {written}. {error}"
    rows, columns = (s // p for s, p in zip(keys["img_size"], keys["patch_size"], strict=True))
    return (
        f"a vision transformer with the names of {written}, width {keys['embed_dim']}, depth "
        f"{keys['depth']}, patches of {keys['patch_size'][0]} x {keys['patch_size'][1]} pixels in "
        f"a grid of {rows} x {columns}, {keys['reg_tokens']} registers; {keys['num_heads']} heads, "
        f"assuming {keys['embed_dim'] // keys['num_heads']} channels per head"
    )


def _heads(width: int, channels: int, heads: int | None) -> int:
    if heads is None and not width % channels:
        return width // channels
    if heads is None or heads < 1 or width % heads:
        split = f"{heads} heads" if heads is not None else f"heads of {channels} channels"
        raise ValueError(
            f"A width of {width} cannot be split into {split}. Pass the number of heads with "
            f"heads=... (--heads on the command line), because shapes do not determine it."
        )
    return heads


def _grid(positions: int, prefix: int, grid: Grid | None) -> tuple[Grid, bool]:
    """The grid of the patches, and whether the prefix tokens have no position embeddings."""
    if grid is not None:
        return grid, positions == grid[0] * grid[1] and prefix > 0
    if prefix and math.isqrt(positions) ** 2 == positions:  # rarely wrong, for a non-square grid
        return square_grid(positions), True
    return square_grid(positions - prefix), False


__getattr__ = old_names(__name__)
