"""Convert one network of a checkpoint to the names of another framework."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.names import listed
from mixplug.weights.architecture import architecture_of
from mixplug.weights.dialects import dialect_of, in_timms_names
from mixplug.weights.names import (
    LAYOUTS,
    PRETRAINING,
    head_to_dino,
    layout_of,
    only_beit,
    translate,
)
from mixplug.weights.notes import WRITTEN, notes_of
from mixplug.weights.parts import Part
from mixplug.weights.parts import part as part_of
from mixplug.weights.position import (
    Grid,
    prefix_tokens,
    resize_biases,
    resize_positions,
    square_grid,
)
from mixplug.weights.preprocessing import DINO_IMAGES, preprocessing_of
from mixplug.weights.read import read

_POSITIONS = "pos_embed"
_OWNERS = ("teacher", "student")
_SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    Attributes:
        source: the converted part, with its prefix in the file.
        layout: whose names the file has: 'timm', 'mmpretrain', 'mmseg', or those of
            :func:`mixplug.weights.dialects.dialect_of`.
        state: the written tensors, flat.
        left_out: names in the part that were not written: classifiers, decoders and mask tokens of
            pretraining, and heads that the target layout does not have.
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
    """Write one network of a checkpoint under the names of another framework.

    For 'timm', 'mmpretrain' and 'mmseg', a .pth file is ``{'state_dict': {...}}`` with the backbone
    in the form that the framework loads (from timm to timm, it includes timm's own classifier). For
    'dino' it is ``{'teacher': {'backbone.…', 'head.…'}}``, the form that DINO's evaluation reads,
    or 'student' if that is the part. A .safetensors file has the same names joined by dots, without
    'state_dict'. Converting back gives equal tensors. What the file says about its images (mean,
    std, size, crop and interpolation) and about the activation, the epsilon of the norms and the
    number of heads is also written, under the key 'mixplug'.

    mmseg's models compute the same only with ``norm_cfg=dict(type='LN', eps=1e-6)`` and
    ``final_norm``. Its VisionTransformer also needs ``patch_bias=True``, because by default its
    patch embedding has no bias.

    Args:
        path: path of the checkpoint.
        out: path of the result, ending with .safetensors, .pth or .pt.
        part: network in the checkpoint, see :func:`mixplug.weights.part`.
        to: 'timm', 'mmpretrain', 'mmseg' or 'dino'. A ViT stays a ViT, and a BEiT stays a BEiT.
        grid: (rows, columns) of patches to which position embeddings and a BEiT's biases are
            resized; the grid in the checkpoint must be square.

    Raises:
        ValueError: an unknown suffix or framework, ``out`` is the checkpoint itself, a part without
            a vision transformer, or tensors that the target framework does not have.
    """
    path, out = Path(path), Path(out)
    if out.suffix not in _SUFFIXES:
        raise ValueError(f"out must end with {listed(_SUFFIXES)}; got {out.name}.")
    if to not in LAYOUTS:
        raise ValueError(f"to must be {listed(LAYOUTS)}; got {to!r}.")
    if out.exists() and out.samefile(path):
        raise ValueError(f"{out} is the checkpoint itself. Choose another output file.")
    found = read(path)
    chosen = part_of(found, part, path.name)
    written = dialect_of(chosen.backbone)
    state, unneeded = in_timms_names(chosen.backbone)
    layout = layout_of(state)
    if layout is None:
        raise ValueError(f"{path} has no vision transformer in its part {chosen}.")
    backbone, left_out = translate(state, layout, to)
    left_out = [*unneeded, *left_out, *(n for n in backbone if n.startswith(PRETRAINING))]
    backbone = {n: tensor for n, tensor in backbone.items() if not n.startswith(PRETRAINING)}
    if grid is not None:
        backbone |= _resized(backbone, grid)
    with_head = to == "dino" and chosen.name in _OWNERS
    named = _dino(chosen, backbone, with_head) if to == "dino" else backbone
    left_out += [f"head.{name}" for name in chosen.head if not with_head]
    settings = _settings(path, found, part, chosen)
    if to == "dino" and settings == {"images": DINO_IMAGES}:
        settings = {}  # a file of DINO needs no note
    _write(named, out, {"part": str(chosen), "names": to}, settings)
    return Converted(str(chosen), written or layout, named, left_out)


def _settings(
    path: Path, found: Mapping[str, Any], part: str | None, chosen: Part
) -> dict[str, Any]:
    """What the file says about the network and its images, without guesses."""
    images = preprocessing_of(path, part, found=found)
    known = {k: v for k, v in images.facts().items() if k not in (*images.guessed, "guessed")}
    known = {k: v for k, v in known.items() if k not in ("source", "bgr") or v is True}
    return {**architecture_of(notes_of(path, found), chosen.backbone).facts(), "images": known}


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
    owner = chosen.name if chosen.name in _OWNERS else _OWNERS[0]  # DINO evaluates the teacher
    named = {f"{owner}.backbone.{name}": tensor for name, tensor in backbone.items()}
    head = head_to_dino(chosen.head) if with_head else {}
    return named | {f"{owner}.head.{name}": tensor for name, tensor in head.items()}


def _write(
    state: Mapping[str, Tensor], out: Path, metadata: dict[str, str], settings: dict[str, Any]
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    # Copy, because a view would save its whole storage, and safetensors refuses shared tensors.
    whole = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    if out.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(whole, out, metadata={**metadata, WRITTEN: json.dumps(settings)})
        return
    nested: dict[str, Any] = {WRITTEN: settings} if settings else {}
    for name, tensor in whole.items():
        owner, dot, rest = name.partition(".")
        if dot and owner in _OWNERS:
            nested.setdefault(owner, {})[rest] = tensor
        else:
            nested.setdefault("state_dict", {})[name] = tensor
    torch.save(nested, out)
