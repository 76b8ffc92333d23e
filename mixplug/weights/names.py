"""What the tensors of a vision transformer are called in timm, mmpretrain, mmseg and DINO.

timm's names are the ones that others are translated to and from. All keep queries, keys and values
in one matrix, in this order, so a translation changes names only, and its way back is exact. There
are two kinds, and neither computes what the other does: a ViT, and a BEiT, whose attention has
biases of relative positions, and of queries and values alone. Adding a layout is adding a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mixplug.names import listed

_BLOCK = re.compile(r"^(blocks|layers)\.(\d+)\.")
VIT, BEIT = "VisionTransformer", "BEiT"  # the kinds


def _affine(modules: Mapping[str, str]) -> dict[str, str]:
    """Names of weights and biases, of those of their modules."""
    return {f"{a}.{leaf}": f"{b}.{leaf}" for a, b in modules.items() for leaf in ("weight", "bias")}


# What all have, by timm's names and by those of OpenMMLab.
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
_AVERAGE = _affine({"fc_norm": "ln2"})  # after averaging
_TABLE = "relative_position_bias_table"
_BEIT_ONLY = {
    f"blocks.*.{name}": f"layers.*.{name}"
    for name in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias", f"attn.{_TABLE}")
}
_ONE_TABLE = {f"rel_pos_bias.{_TABLE}": f"rel_pos_bias.{_TABLE}"}  # for all blocks
_BEIT = {k: v for k, v in (_COMMON | _QKV).items() if "qkv.bias" not in k} | _BEIT_ONLY
# Per kind and layout: timm's name to its own, for all that its model has.
_TABLES: dict[str, dict[str, dict[str, str]]] = {
    VIT: {
        "mmpretrain": _COMMON
        | _POSITIONS
        | _QKV
        | _AVERAGE
        | _affine({"norm_pre": "pre_norm"})
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
# What a model always has, by timm's names: weights without it are of something else.
_ALWAYS = {
    (VIT, "mmseg"): ("cls_token", "pos_embed"),
    (BEIT, "mmseg"): ("cls_token", *_BEIT_ONLY),
    (BEIT, "timm"): ("cls_token",),
}
UNNEEDED = ("head.", "head_dist.", "mask_token")  # features are the same without these
_DENSE = {"mmseg": ("fc_norm.",)}  # likewise in a host that averages no features
_DERIVED = "relative_position_index"  # what a model makes of its grid; only OpenMMLab's save it
_LAST_LAYER = {
    "last_layer.parametrizations.weight.original0": "last_layer.weight_g",
    "last_layer.parametrizations.weight.original1": "last_layer.weight_v",
}


def layout_of(names: Iterable[str]) -> str | None:
    """Whose the names are; None is no vision transformer.

    DINO's are 'timm', and those of a BEiT are 'mmseg' where mmpretrain has the same.
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
    """Those names, with ``*`` for numbers of blocks, that a BEiT has and a ViT has not."""
    marks = {*_BEIT_ONLY, *_BEIT_ONLY.values(), *_ONE_TABLE}
    return sorted(marks.intersection(map(generic, names)))


def kind_of(names: Iterable[str]) -> str:
    """:data:`BEIT` or :data:`VIT`, of a vision transformer with names of any layout."""
    return BEIT if only_beit(names) else VIT


def is_derived(name: str) -> bool:
    """Whether a tensor is no weight, but made of the grid by each model for itself."""
    return name.endswith(_DERIVED)


def translate(
    state: Mapping[str, Tensor], source: str, target: str
) -> tuple[dict[str, Tensor], list[str]]:
    """A backbone's tensors under the names of another layout; tensors are the same objects.

    What a model makes for itself, the indices of relative positions, is no weight: it is left out
    unsaid.

    Args:
        state: of the backbone, without prefix.
        source: of :data:`LAYOUTS`, what ``state`` has.
        target: likewise. A ViT becomes its VisionTransformer, a BEiT its BEiT.

    Returns:
        The tensors, and the names (in ``state``) of a classifier's or a mask's that were left out;
        none between equal layouts. mmseg has no norm of averages, which is left out likewise.

    Raises:
        ValueError: another layout, one that has no such model, tensors that it has no place for and
            that matter, or no tensors where it always has some.
    """
    for layout in (source, target):
        if layout not in LAYOUTS:
            raise ValueError(f"A layout is {listed(LAYOUTS)}, got {layout!r}.")
    kind = kind_of(state)
    theirs, ours = _table(kind, source), _table(kind, target)
    to_timm = {name: timm for timm, name in theirs.items()}
    found: dict[str, Tensor] = {}
    canonical: set[str] = set()
    dropped, homeless = [], []
    for name, tensor in state.items():
        if is_derived(name):
            continue
        timm = name if source == "timm" else _renamed(name, to_timm)
        known = timm if target == "timm" else _renamed(timm, ours)
        if known and timm:
            found[known] = tensor
            canonical.add(generic(timm))
        elif name.startswith(UNNEEDED) or (timm or "").startswith(_DENSE.get(target, ())):
            dropped.append(name)
        else:
            homeless.append(name)
    if homeless:
        raise ValueError(
            f"{len(homeless)} tensors have no place between the {kind}s of {source} and "
            f"{target}, which would compute something else without them: "
            f"{', '.join(sorted({generic(name) for name in homeless}))}."
        )
    if source != target:
        _complete(canonical, kind, target)
    return found, dropped


def _table(kind: str, layout: str) -> Mapping[str, str]:
    if layout == "timm":
        return {}
    if layout not in _TABLES[kind]:
        has = listed(("timm", *_TABLES[kind]), "and")
        raise ValueError(f"{layout} has no {kind}; a {kind} is converted between {has}.")
    return _TABLES[kind][layout]


def _complete(canonical: set[str], kind: str, target: str) -> None:
    """Refuse what would leave tensors of every such model at random."""
    always = set(_ALWAYS.get((kind, target), ()))
    if kind == VIT and target == "mmseg" and "blocks.*.attn.proj.bias" in canonical:
        always.add("blocks.*.attn.qkv.bias")  # one switch for both, in torch's own attention
    lacking = sorted(always - canonical)
    if lacking:
        raise ValueError(
            f"Every {kind} of {target} has what these weights have not, by timm's names: "
            f"{', '.join(lacking)}."
        )


def generic(name: str) -> str:
    """A name with ``*`` for the number of its block."""
    return _BLOCK.sub(r"\1.*.", name)


def head_to_dino(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A projection head with DINO's names; torch's own of a weight-normalized layer are changed."""
    return {_LAST_LAYER.get(name, name): tensor for name, tensor in head.items()}


def _renamed(name: str | None, table: Mapping[str, str]) -> str | None:
    if name is None:
        return None
    number = _BLOCK.match(name)
    found = table.get(generic(name))
    return found.replace("*", number[2]) if found and number else found
