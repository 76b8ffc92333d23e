"""Describe how two vision transformers differ, from the shapes of their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mixplug.names import listed, shortened
from mixplug.weights.names import layout_of

# Tensors with tokens before those of the patches, and the names of these tokens.
_TOKENS = {
    "cls_token": "class token",
    "dist_token": "distillation token",
    "reg_token": "register",
    "register_tokens": "register",
}
_PATCH = ("patch_embed.proj.weight", "patch_embed.projection.weight")
_BLOCK = re.compile(r"^(?:blocks|layers)\.(\d+)\.")


def tokens_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of tokens of each kind before those of the patches, from names of any framework."""
    found: dict[str, int] = {}
    for name, kind in _TOKENS.items():
        if name in state and state[name].dim() > 1:
            found[kind] = found.get(kind, 0) + state[name].shape[-2]
    return {kind: count for kind, count in found.items() if count}


def differences(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """How a checkpoint's network differs from a model, as text; '' if unknown or equal."""
    if layout_of(own) is None:
        return ""
    if layout_of(given) is None:
        return f"the checkpoint has no vision transformer, but {shortened(given)}"
    theirs, ours = _sizes(given), _sizes(own)
    different = [what for what in ours if theirs[what] != ours[what]]
    if not different:
        return ""
    sides = [", ".join(side[what] for what in different) for side in (theirs, ours)]
    return f"the checkpoint has {sides[0]}; the model has {sides[1]}"


def _sizes(state: Mapping[str, Tensor]) -> dict[str, str]:
    patch = next(state[name] for name in _PATCH if name in state)
    depth = len({found[1] for found in map(_BLOCK.match, state) if found})
    side = " x ".join(map(str, patch.shape[2:]))
    return {
        "width": f"width {patch.shape[0]}",
        "depth": f"depth {depth}",
        "patch": f"patches of {side} pixels",
        "tokens": _describe(tokens_of(state)),
    }


def _describe(tokens: Mapping[str, int]) -> str:
    counts = [f"a {kind}" if count == 1 else f"{count} {kind}s" for kind, count in tokens.items()]
    return f"{listed(counts, 'and') or 'no token'} before the patches"
