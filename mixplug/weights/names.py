"""What the tensors of a vision transformer are called in timm, mmpretrain and DINO.

timm's names are the ones that others are translated to and from. All three keep queries, keys and
values in one matrix, in this order, so a translation changes names only, and its way back is exact.
Adding a layout is adding a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_BLOCK = re.compile(r"^(blocks|layers)\.(\d+)\.")
_AFFINE = ("weight", "bias")
# timm's names of modules with weight and bias that DINO's ViT has as well, and mmpretrain's.
_MODULES = {
    "patch_embed.proj": "patch_embed.projection",
    "blocks.*.norm1": "layers.*.ln1",
    "blocks.*.attn.qkv": "layers.*.attn.qkv",
    "blocks.*.attn.proj": "layers.*.attn.proj",
    "blocks.*.norm2": "layers.*.ln2",
    "blocks.*.mlp.fc1": "layers.*.ffn.layers.0.0",
    "blocks.*.mlp.fc2": "layers.*.ffn.layers.1",
    "norm": "ln1",
}
_SHARED = {name: name for name in ("cls_token", "pos_embed")} | {
    f"{timm}.{leaf}": f"{mm}.{leaf}" for timm, mm in _MODULES.items() for leaf in _AFFINE
}
_MM_ONLY = {
    f"{timm}.{leaf}": f"{mm}.{leaf}"
    for timm, mm in {"norm_pre": "pre_norm", "fc_norm": "ln2"}.items()  # ln2 comes after averaging
    for leaf in _AFFINE
} | {
    "blocks.*.ls1.gamma": "layers.*.attn.gamma1.weight",
    "blocks.*.ls2.gamma": "layers.*.ffn.gamma2.weight",
}
# Per layout: timm's name to its own, for all that its VisionTransformer has.
_TABLES: dict[str, dict[str, str]] = {
    "mmpretrain": _SHARED | _MM_ONLY,
    "dino": {name: name for name in _SHARED},
}
LAYOUTS = ("timm", *_TABLES)
UNNEEDED = ("head.", "head_dist.", "mask_token")  # features are the same without these
_LAST_LAYER = {
    "last_layer.parametrizations.weight.original0": "last_layer.weight_g",
    "last_layer.parametrizations.weight.original1": "last_layer.weight_v",
}


def layout_of(names: Iterable[str]) -> str | None:
    """'timm' (DINO's names are the same) or 'mmpretrain'; None is no vision transformer."""
    known = set(names)
    if "patch_embed.proj.weight" in known and any(n.startswith("blocks.") for n in known):
        return "timm"
    if "patch_embed.projection.weight" in known and any(n.startswith("layers.") for n in known):
        return "mmpretrain"
    return None


def translate(
    state: Mapping[str, Tensor], source: str, target: str
) -> tuple[dict[str, Tensor], list[str]]:
    """A backbone's tensors under the names of another layout; tensors are the same objects.

    Args:
        state: of the backbone, without prefix.
        source: of :data:`LAYOUTS`, what ``state`` has.
        target: likewise.

    Returns:
        The tensors, and the names (in ``state``) of a classifier's or a mask's that were left out;
        none between equal layouts.

    Raises:
        ValueError: another layout, or tensors that it has no place for and that matter.
    """
    for layout in (source, target):
        if layout not in LAYOUTS:
            raise ValueError(f"A layout is one of {LAYOUTS}, got {layout!r}.")
    to_timm = {theirs: timm for timm, theirs in _TABLES.get(source, {}).items()}
    found: dict[str, Tensor] = {}
    dropped, homeless = [], []
    for name, tensor in state.items():
        canonical = name if source == "timm" else _renamed(name, to_timm)
        known = canonical if target == "timm" else _renamed(canonical, _TABLES[target])
        if known:
            found[known] = tensor
        elif name.startswith(UNNEEDED):
            dropped.append(name)
        else:
            homeless.append(name)
    if homeless:
        raise ValueError(
            f"{len(homeless)} tensors have no place between the VisionTransformers of {source} and "
            f"{target}, which would compute something else without them: "
            f"{', '.join(sorted({generic(name) for name in homeless}))}."
        )
    return found, dropped


def generic(name: str) -> str:
    """A name with ``*`` for the number of its block."""
    return _BLOCK.sub(r"\1.*.", name)


def head_to_dino(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A projection head with DINO's names; torch's own of a weight-normalised layer are changed."""
    return {_LAST_LAYER.get(name, name): tensor for name, tensor in head.items()}


def head_to_torch(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back from :func:`head_to_dino`."""
    back = {dino: torch for torch, dino in _LAST_LAYER.items()}
    return {back.get(name, name): tensor for name, tensor in head.items()}


def _renamed(name: str | None, table: Mapping[str, str]) -> str | None:
    if name is None:
        return None
    number = _BLOCK.match(name)
    found = table.get(generic(name))
    return found.replace("*", number[2]) if found and number else found
