"""Names of a vision transformer's tensors in timm, mmpretrain, mmseg and DINO.

All translations go through timm's names. All frameworks store queries, keys and values in one
matrix, in this order. So a translation only changes names and can be reversed exactly. There are
two kinds of networks, which compute different things: a ViT, and a BEiT, whose attention has biases
for relative positions, and biases for queries and values but not for keys. To add a layout, add a
table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mixplug.names import listed

_BLOCK = re.compile(r"^(blocks|layers)\.(\d+)\.")
VIT, BEIT = "VisionTransformer", "BEiT"  # the two kinds


def _affine(modules: Mapping[str, str]) -> dict[str, str]:
    """Names of weights and biases from the names of their modules."""
    return {f"{a}.{leaf}": f"{b}.{leaf}" for a, b in modules.items() for leaf in ("weight", "bias")}


# Tensors that all models have: timm's name to OpenMMLab's name.
_COMMON = {"cls_token": "cls_token"} | _affine(
    {
        "patch_embed.proj": "patch_embed.projection",
        "blocks.*.norm1": "layers.*.ln1",
        "blocks.*.norm2": "layers.*.ln2",
        "blocks.*.mlp.fc1": "layers.*.ffn.layers.0.0",
        "blocks.*.mlp.fc2": "layers.*.ffn.layers.1",
        "norm": "ln1",
    }
)
_POSITIONS = {"pos_embed": "pos_embed"}
_QKV = _affine({f"blocks.*.attn.{name}": f"layers.*.attn.{name}" for name in ("qkv", "proj")})
_AVERAGE = _affine({"fc_norm": "ln2"})  # the norm after averaging
_TABLE = "relative_position_bias_table"
_BEIT_ONLY = {
    f"blocks.*.{name}": f"layers.*.{name}"
    for name in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias", f"attn.{_TABLE}")
}
_ONE_TABLE = {f"rel_pos_bias.{_TABLE}": f"rel_pos_bias.{_TABLE}"}  # shared by all blocks
_BEIT = {k: v for k, v in (_COMMON | _QKV).items() if "qkv.bias" not in k} | _BEIT_ONLY
# For each kind and layout: timm's name to the layout's name, for all tensors of the model.
_TABLES: dict[str, dict[str, dict[str, str]]] = {
    VIT: {
        "mmpretrain": _COMMON
        | _POSITIONS
        | _QKV
        | _AVERAGE
        | _affine({"norm_pre": "pre_norm"})
        | {"dist_token": "dist_token"}  # of its DistilledVisionTransformer
        | _affine({f"blocks.*.mlp.{name}": f"layers.*.ffn.{name}" for name in ("w12", "w3")})
        | {
            "blocks.*.ls1.gamma": "layers.*.attn.gamma1.weight",
            "blocks.*.ls2.gamma": "layers.*.ffn.gamma2.weight",
        },
        "dino": {name: name for name in _COMMON | _POSITIONS | _QKV},
        "mmseg": _COMMON
        | _POSITIONS
        | _affine({"norm_pre": "ln_pre", "blocks.*.attn.proj": "layers.*.attn.attn.out_proj"})
        | {
            f"blocks.*.attn.qkv.{leaf}": f"layers.*.attn.attn.in_proj_{leaf}"
            for leaf in ("weight", "bias")
        },
    },
    BEIT: {
        "mmpretrain": _BEIT | _POSITIONS | _AVERAGE | _ONE_TABLE,
        "mmseg": _BEIT,
    },
}
LAYOUTS = ("timm", *_TABLES[VIT])
# Tensors that a model always has, by timm's names.
_ALWAYS = {
    (VIT, "mmseg"): ("cls_token", "pos_embed"),
    (BEIT, "mmseg"): ("cls_token", *_BEIT_ONLY),
    (BEIT, "timm"): ("cls_token",),
}
PRETRAINING = ("decoder_", "decoder.", "mask_token", "masked_embed")  # only pretraining uses these
UNNEEDED = ("head.", "head_dist.", "pre_logits.", *PRETRAINING)  # features do not depend on these
_DENSE = {"mmseg": ("fc_norm.",)}  # also not on these if the framework does not average features
_DERIVED = "relative_position_index"  # computed from the grid; only OpenMMLab's models save it
_LAST_LAYER = {
    "last_layer.parametrizations.weight.original0": "last_layer.weight_g",
    "last_layer.parametrizations.weight.original1": "last_layer.weight_v",
}


def layout_of(names: Iterable[str]) -> str | None:
    """Layout of the names, or None if they do not belong to a vision transformer.

    DINO's names are 'timm'. BEiT names that mmseg and mmpretrain share are 'mmseg'.
    """
    known = set(names)
    if "patch_embed.proj.weight" in known and any(n.startswith("blocks.") for n in known):
        return "timm"
    if "patch_embed.projection.weight" not in known:
        return None
    known = {generic(name) for name in known}
    if kind_of(known) == BEIT:
        own = {*_POSITIONS, *_ONE_TABLE, *_AVERAGE.values()}
        always = {_BEIT_ONLY[name] for name in _BEIT_ONLY}
        return "mmseg" if known.isdisjoint(own) and always <= known else "mmpretrain"
    if "layers.*.attn.attn.in_proj_weight" in known:
        return "mmseg"
    return "mmpretrain" if any(n.startswith("layers.") for n in known) else None


def only_beit(names: Iterable[str]) -> list[str]:
    """Names that a BEiT has and a ViT does not have, with ``*`` for block numbers."""
    marks = {*_BEIT_ONLY, *_BEIT_ONLY.values(), *_ONE_TABLE}
    return sorted(marks.intersection(map(generic, names)))


def kind_of(names: Iterable[str]) -> str:
    """:data:`BEIT` or :data:`VIT`, from a vision transformer's names in any layout."""
    return BEIT if only_beit(names) else VIT


def is_derived(name: str) -> bool:
    """Whether a tensor is not a weight but computed from the grid by each model."""
    return name.endswith(_DERIVED)


def translate(
    state: Mapping[str, Tensor], source: str, target: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a backbone under the names of another layout; the tensors are not copied.

    Indices of relative positions are dropped without a report, because each model computes them
    itself.

    Args:
        state: tensors of the backbone, without prefix.
        source: layout of ``state``, one of :data:`LAYOUTS`.
        target: layout of the result, one of :data:`LAYOUTS`. A ViT becomes the layout's
            VisionTransformer, a BEiT its BEiT.

    Returns:
        The tensors, and the names in ``state`` of dropped tensors of a classifier or a mask token;
        no names are dropped between equal layouts. mmseg has no norm after averaging, which is
        dropped in the same way.

    Raises:
        ValueError: an unknown layout, a layout without such a model, tensors that matter but that
            the target does not have, or missing tensors that the target always has.
    """
    for layout in (source, target):
        if layout not in LAYOUTS:
            raise ValueError(f"A layout must be {listed(LAYOUTS)}; got {layout!r}.")
    if source == "timm" and target != "timm" and _is_gated(state):
        state = {_swapped(name, "fc1", "w12", "fc2", "w3"): t for name, t in state.items()}
    kind = kind_of(state)
    source_table, target_table = _table(kind, source), _table(kind, target)
    to_timm = {name: timm for timm, name in source_table.items()}
    found: dict[str, Tensor] = {}
    canonical: set[str] = set()
    dropped, unsupported = [], []
    for name, tensor in state.items():
        if is_derived(name):
            continue
        timm = name if source == "timm" else _renamed(name, to_timm)
        known = timm if target == "timm" else _renamed(timm, target_table)
        if known and timm:
            found[known] = tensor
            canonical.add(generic(timm))
        elif name.startswith(UNNEEDED) or (timm or "").startswith(_DENSE.get(target, ())):
            dropped.append(name)
        else:
            unsupported.append(name)
    if unsupported:
        raise ValueError(
            f"{len(unsupported)} tensors cannot be converted from the {kind} of {source} to that "
            f"of {target}, which would compute something else without them: "
            f"{', '.join(sorted({generic(name) for name in unsupported}))}."
        )
    if source != target:
        _check_complete(canonical, kind, target)
    if target == "timm" and source != "timm":
        found = {_swapped(name, "w12", "fc1", "w3", "fc2"): t for name, t in found.items()}
    return found, dropped


def _is_gated(state: Mapping[str, Tensor]) -> bool:
    """Whether the MLPs are SwiGLUs: the first layer is twice as wide as the last."""
    first, last = (state.get(f"blocks.0.mlp.{name}.weight") for name in ("fc1", "fc2"))
    both = first is not None and last is not None and first.dim() == last.dim() == 2
    return both and len(first) == 2 * last.shape[1]  # type: ignore[arg-type,union-attr]


def _swapped(name: str, *names: str) -> str:
    """A name with other names of the layers of an MLP, which are given as old, new, old, new."""
    for old, new in zip(names[::2], names[1::2], strict=True):
        if _BLOCK.match(name) and f".mlp.{old}." in name:
            return name.replace(f".mlp.{old}.", f".mlp.{new}.")
    return name


def _table(kind: str, layout: str) -> Mapping[str, str]:
    if layout == "timm":
        return {}
    if layout not in _TABLES[kind]:
        others = listed(("timm", *_TABLES[kind]), "and")
        raise ValueError(f"{layout} has no {kind}. A {kind} can be converted between {others}.")
    return _TABLES[kind][layout]


def _check_complete(canonical: set[str], kind: str, target: str) -> None:
    """Refuse weights that lack tensors of every model of this kind."""
    always = set(_ALWAYS.get((kind, target), ()))
    if kind == VIT and target == "mmseg" and "blocks.*.attn.proj.bias" in canonical:
        always.add("blocks.*.attn.qkv.bias")  # torch's attention has both biases or none
    missing = sorted(always - canonical)
    if missing:
        raise ValueError(
            f"These weights lack tensors that every {kind} of {target} has (timm's names): "
            f"{', '.join(missing)}."
        )


def generic(name: str) -> str:
    """A name with ``*`` in place of the block number."""
    return _BLOCK.sub(r"\1.*.", name)


def head_to_dino(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a projection head with DINO's names.

    The names that torch's parametrized weight norm gives are changed to the older ones.
    """
    return {_LAST_LAYER.get(name, name): tensor for name, tensor in head.items()}


def _renamed(name: str | None, table: Mapping[str, str]) -> str | None:
    if name is None:
        return None
    number = _BLOCK.match(name)
    found = table.get(generic(name))
    return found.replace("*", number[2]) if found and number else found
