"""A network of a checkpoint written for another host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.names import listed
from mixplug.weights.names import LAYOUTS, head_to_dino, layout_of, only_beit, translate
from mixplug.weights.parts import Part
from mixplug.weights.parts import part as part_of
from mixplug.weights.position import (
    Grid,
    prefix_tokens,
    resize_biases,
    resize_positions,
    square_grid,
)
from mixplug.weights.read import read

_POSITIONS = "pos_embed"
_OWNERS = ("teacher", "student")
_SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        source: the part that was taken, with its prefix in the file.
        layout: 'timm', 'mmpretrain' or 'mmseg', of the names it had.
        state: what was written, flat.
        left_out: the rest of the part: names of classifiers, and heads where the host has none.
    """

    source: str
    layout: str
    state: Mapping[str, Tensor]
    left_out: list[str]


def convert(
    path: str | Path,
    out: str | Path,
    part: str | None = None,
    to: str = "timm",
    grid: Grid | None = None,
) -> Converted:
    """Write one network of a checkpoint under the names of another host.

    A .pth for 'timm', 'mmpretrain' and 'mmseg' is ``{'state_dict': {...}}`` of the backbone, as
    they load it (and of timm's own classifier, from timm to timm); for 'dino' it is
    ``{'teacher': {'backbone.…', 'head.…'}}``, as DINO's evaluation reads it, with 'student' where
    that is the part. A .safetensors has the same names joined by dots, without 'state_dict'. The
    way back gives equal tensors.

    mmseg's models are the same only with ``norm_cfg=dict(type='LN', eps=1e-6)`` and ``final_norm``,
    and its VisionTransformer only with ``patch_bias=True``; by default it has no bias of patches.

    Args:
        path: of the checkpoint.
        out: .safetensors, .pth or .pt.
        part: which of its networks, see :func:`mixplug.weights.part`.
        to: 'timm', 'mmpretrain', 'mmseg' or 'dino'. A ViT stays one, and a BEiT, too.
        grid: (rows, columns) of patches to resize position embeddings to, and a BEiT's biases;
            from a square.

    Raises:
        ValueError: another ending or host, ``out`` is the checkpoint itself, a part without a
            vision transformer, or one with tensors that the host has no place for.
    """
    path, out = Path(path), Path(out)
    if out.suffix not in _SUFFIXES:
        raise ValueError(f"A checkpoint ends with {listed(_SUFFIXES)}, got {out.name}.")
    if to not in LAYOUTS:
        raise ValueError(f"A checkpoint is converted to {listed(LAYOUTS)}, got {to!r}.")
    if out.exists() and out.samefile(path):
        raise ValueError(f"{out} is the checkpoint itself: write to another file.")
    chosen = part_of(read(path), part, path.name)
    layout = layout_of(chosen.backbone)
    if layout is None:
        raise ValueError(f"{path} has no vision transformer in its part {chosen}.")
    backbone, left_out = translate(chosen.backbone, layout, to)
    if grid is not None:
        backbone |= _resized(backbone, grid)
    with_head = to == "dino" and chosen.name in _OWNERS
    state = _dino(chosen, backbone, with_head) if to == "dino" else backbone
    left_out += [f"head.{name}" for name in chosen.head if not with_head]
    _write(state, out, {"part": str(chosen), "names": to})
    return Converted(str(chosen), layout, state, left_out)


def _resized(backbone: Mapping[str, Tensor], grid: Grid) -> dict[str, Tensor]:
    found = {
        name: resize_biases(table, None, grid)
        for name, table in backbone.items()
        if only_beit([name]) and table.dim() == 2
    }
    if _POSITIONS in backbone:
        positions = backbone[_POSITIONS]
        source = square_grid(positions.shape[1] - prefix_tokens(backbone))
        found[_POSITIONS] = resize_positions(positions, source, grid)
    return found


def _dino(chosen: Part, backbone: Mapping[str, Tensor], with_head: bool) -> dict[str, Tensor]:
    owner = chosen.name if chosen.name in _OWNERS else _OWNERS[0]  # the one that DINO evaluates
    named = {f"{owner}.backbone.{name}": tensor for name, tensor in backbone.items()}
    head = head_to_dino(chosen.head) if with_head else {}
    return named | {f"{owner}.head.{name}": tensor for name, tensor in head.items()}


def _write(state: Mapping[str, Tensor], out: Path, said: dict[str, str]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    # Copies: a view would bring its whole storage, and safetensors takes no shared ones.
    whole = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    if out.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(whole, out, metadata=said)
        return
    nested: dict[str, Any] = {}
    for name, tensor in whole.items():
        owner, dot, rest = name.partition(".")
        if dot and owner in _OWNERS:
            nested.setdefault(owner, {})[rest] = tensor
        else:
            nested.setdefault("state_dict", {})[name] = tensor
    torch.save(nested, out)
