"""Read the names of DINOv2's release and of Hugging Face's transformers as timm's names.

Both have the same networks as timm under other names. They split or join some tensors in another
way, so this direction is not a table of names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mixplug.names import listed

DINOV2, TRANSFORMERS = "DINOv2's release", "Hugging Face's transformers"
_REGISTERS = "register_tokens"
_CHUNK = re.compile(r"^blocks\.\d+\.(\d+)\.")  # blocks in chunks; the second number counts them all
_GATED = re.compile(r"^(blocks\.\d+\.mlp)\.(w12|w3)\.")
_GATED_NAMES = {"w12": "fc1", "w3": "fc2"}
_PATCHES = "embeddings.patch_embeddings.projection.weight"
_LAYER = re.compile(r"^(?:encoder\.)?layers?\.(\d+)\.(.+)\.(\w+)$")
_QUERY = re.compile(r"^(?:encoder\.)?layers?\.0\.attention\.(?:attention\.query|q_proj)\.weight$")
# Names in transformers to timm's names; several parts of one tensor are joined in this order.
_EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": _REGISTERS,
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.mask_token": "mask_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_MODULES = {
    "norm1": "norm1", "layernorm_before": "norm1", "norm2": "norm2", "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj", "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1", "mlp.fc1": "mlp.fc1", "mlp.weights_in": "mlp.fc1",
    "output.dense": "mlp.fc2", "mlp.fc2": "mlp.fc2", "mlp.weights_out": "mlp.fc2",
    "mlp.down_proj": "mlp.fc2",
}  # fmt: skip
_SCALES = {"layer_scale1": "ls1.gamma", "layer_scale2": "ls2.gamma"}
_JOINED = {
    "attn.qkv": (
        ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
        ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    ),
    "mlp.fc1": (("mlp.gate_proj", "mlp.up_proj"),),  # the gate is first, as in timm's SwiGLUPacked
}
_PARTS = {
    name: (whole, place)
    for whole, ways in _JOINED.items()
    for names in ways
    for place, name in enumerate(names)
}
_COUNT = {whole: len(ways[0]) for whole, ways in _JOINED.items()}
_CLASSIFIERS = {
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "head_dist",
}
_HEADS = ("classifier.", "cls_classifier.", "distillation_classifier.", "pooler.", "decoder.")


def dialect_of(names: Iterable[str]) -> str | None:
    """:data:`DINOV2` or :data:`TRANSFORMERS` if the names are theirs; None for all others."""
    known = set(names)
    if _prefix(known) is not None:
        return TRANSFORMERS
    if "patch_embed.proj.weight" not in known:
        return None
    own = any(name == _REGISTERS or _CHUNK.match(name) or _GATED.match(name) for name in known)
    return DINOV2 if own else None


def in_timms_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """A vision transformer's tensors with timm's names, and the names of tensors left out.

    Queries, keys and values are joined. Where there are registers, the position embedding of the
    class token is added to the token, as in timm's models with registers. A classifier on the class
    token keeps its place. Left out are mask tokens, other classifiers, poolers, and decoders of
    pretraining. Tensors without another name are returned as
    they are.

    Args:
        state: tensors with names for which :func:`dialect_of` is not None; others are returned.

    Raises:
        ValueError: a tensor of transformers that no VisionTransformer of timm has, or a part of a
            joined tensor is missing.
    """
    dialect = dialect_of(state)
    if dialect is None:
        return dict(state), []
    left_out: list[str] = []
    found = dict(state)
    if dialect == TRANSFORMERS:
        found, left_out = _from_transformers(state)
    renamed = {_of_dinov2(name): tensor for name, tensor in found.items()}
    masks = [name for name in renamed if name == "mask_token"]
    for name in masks:
        del renamed[name]
    if _REGISTERS in renamed:
        renamed = _registers_folded(renamed)
    return renamed, [*masks, *left_out]


def _of_dinov2(name: str) -> str:
    name = _CHUNK.sub(r"blocks.\1.", name)
    gated = _GATED.match(name)
    if gated is None:
        return name
    return name.replace(gated[0], f"{gated[1]}.{_GATED_NAMES[gated[2]]}.", 1)


def _registers_folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Position embeddings of the patches alone; registers have none in DINOv2."""
    found = dict(state)
    registers = found.pop(_REGISTERS)
    positions, token = found.get("pos_embed"), found.get("cls_token")
    shapes = [None if t is None else t.dim() * (t.shape[-1],) for t in (token, positions)]
    if shapes != 2 * [registers.dim() * (registers.shape[-1],)] or registers.dim() != 3:
        raise ValueError(
            f"Registers of {DINOV2} need cls_token and pos_embed of the same width beside them; "
            f"got {_REGISTERS} of {tuple(registers.shape)} with {sorted(state)[:4]}."
        )
    assert token is not None and positions is not None  # by their shapes
    found["reg_token"] = registers
    found["cls_token"] = token + positions[:, :1]
    found["pos_embed"] = positions[:, 1:]
    return found


def _prefix(names: Iterable[str]) -> str | None:
    """Prefix of a ViT of transformers, such as 'vit.'; None without one."""
    known = set(names)
    for name in known:
        if name.endswith(_PATCHES):
            prefix = name.removesuffix(_PATCHES)
            own = (n.removeprefix(prefix) for n in known if n.startswith(prefix))
            if (not prefix or prefix.endswith(".")) and any(map(_QUERY.match, own)):
                return prefix
    return None


def _from_transformers(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    prefix = str(_prefix(state))
    found: dict[str, Tensor] = {}
    pieces: dict[str, dict[int, Tensor]] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    for name, tensor in state.items():
        own = name.removeprefix(prefix)
        timm, place = _timm_name(own)
        if timm is None:
            head = _classifier(name, tensor, state, prefix)
            if head is not None:
                found[head] = tensor
                continue
            outside = bool(prefix) and not name.startswith(prefix)
            (left_out if outside or own.startswith(_HEADS) else unknown).append(name)
        elif place is None:
            found[timm] = tensor
        else:
            pieces.setdefault(timm, {})[place] = tensor
    for name, parts in pieces.items():
        needed = next(count for whole, count in _COUNT.items() if f".{whole}." in name)
        if len(parts) == needed and len({part.shape for part in parts.values()}) == 1:
            found[name] = torch.cat([parts[place] for place in range(needed)])
        else:
            shapes = [tuple(part.shape) for part in parts.values()]
            unknown.append(f"{name} from {shapes}, not {needed} equal parts")
    if unknown:
        raise ValueError(
            f"The names are those of {TRANSFORMERS}, but it is another network than ViT, DeiT or "
            f"DINOv2: these have no {listed(sorted(unknown)[:4])}."
        )
    return found, left_out


def _classifier(name: str, tensor: Tensor, state: Mapping[str, Tensor], prefix: str) -> str | None:
    """Name in timm of a classifier on the class token; DINOv2's also takes the mean of patches."""
    module, _, leaf = name.rpartition(".")
    owner, _, last = module.rpartition(".")
    inner = prefix.removesuffix(".").rpartition(".")[0]
    weight = state.get(f"{module}.weight")
    if last not in _CLASSIFIERS or owner != inner or weight is None or weight.dim() != 2:
        return None
    if weight.shape[1] != state[f"{prefix}embeddings.cls_token"].shape[-1]:
        return None
    return f"{_CLASSIFIERS[last]}.{leaf}"


def _timm_name(name: str) -> tuple[str | None, int | None]:
    """Name in timm of a tensor of transformers, and which part of it this is."""
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name], None
    layer = _LAYER.match(name)
    if layer is None:
        return None, None
    number, module, leaf = layer.groups()
    if module in _SCALES and leaf == "lambda1":
        return f"blocks.{number}.{_SCALES[module]}", None
    if leaf not in ("weight", "bias"):
        return None, None
    if module in _PARTS:
        whole, place = _PARTS[module]
        return f"blocks.{number}.{whole}.{leaf}", place
    if module in _MODULES:
        return f"blocks.{number}.{_MODULES[module]}.{leaf}", None
    return None, None
