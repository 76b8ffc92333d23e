"""How two vision transformers differ, by what the shapes of their tensors say."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mixplug.names import listed, shortened
from mixplug.weights.names import layout_of

# Tensors whose tokens stand before those of the patches, and what one is called.
_TOKENS = {
    "cls_token": "class token",
    "dist_token": "distillation token",
    "reg_token": "register",
    "register_tokens": "register",
}
_PATCH = ("patch_embed.proj.weight", "patch_embed.projection.weight")
_BLOCK = re.compile(r"^(?:blocks|layers)\.(\d+)\.")


def tokens_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """How many tokens of each kind stand before those of the patches, by names of any host."""
    found: dict[str, int] = {}
    for name, kind in _TOKENS.items():
        if name in state and state[name].dim() > 1:
            found[kind] = found.get(kind, 0) + state[name].shape[-2]
    return {kind: count for kind, count in found.items() if count}


def differences(given: Mapping[str, Tensor], has: Mapping[str, Tensor]) -> str:
    """In words how a checkpoint's network differs from a model; '' where that is not known."""
    if layout_of(has) is None:
        return ""
    if layout_of(given) is None:
        return f"the checkpoint has no vision transformer, but {shortened(given)}"
    theirs, ours = _sizes(given), _sizes(has)
    other = [what for what in ours if theirs[what] != ours[what]]
    if not other:
        return ""
    sides = [", ".join(side[what] for what in other) for side in (theirs, ours)]
    return f"the checkpoint has {sides[0]}; the model has {sides[1]}"


def _sizes(state: Mapping[str, Tensor]) -> dict[str, str]:
    patch = next(state[name] for name in _PATCH if name in state)
    depth = len({found[1] for found in map(_BLOCK.match, state) if found})
    side = " x ".join(map(str, patch.shape[2:]))
    return {
        "width": f"width {patch.shape[0]}",
        "depth": f"depth {depth}",
        "patch": f"patches of {side} pixels",
        "tokens": _said(tokens_of(state)),
    }


def _said(tokens: Mapping[str, int]) -> str:
    said = [f"a {kind}" if count == 1 else f"{count} {kind}s" for kind, count in tokens.items()]
    return f"{listed(said, 'and') or 'no token'} before the patches"
