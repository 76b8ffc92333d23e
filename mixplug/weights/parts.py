"""The backbone in a checkpoint: which of several it is, and without the prefixes of its hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mixplug.names import listed

PARTS = ("teacher", "ema", "model", "student")  # None takes the first that there is
_OWNERS = {"teacher": "teacher", "student": "student", "state_dict_ema": "ema", "model_ema": "ema"}
_HOLDERS = ("state_dict", "model", "module", *_OWNERS)
_WRAPPERS = ("state_dict", "model", "module", "_orig_mod", "timm_model")


@dataclass(frozen=True)
class Part:
    """One of the networks in a checkpoint.

    Attributes:
        name: of :data:`PARTS`.
        prefix: of the backbone's names in the file, with the dot; '' where there is none.
        backbone: its tensors, without the prefix; names are otherwise as in the file.
        head: those of what follows the backbone, without the prefix.
    """

    name: str
    prefix: str
    backbone: Mapping[str, Tensor]
    head: Mapping[str, Tensor]

    def __str__(self) -> str:
        named = f"'{self.prefix}*'" if self.prefix else "no prefix"
        return f"{self.name} ({named})"


def part(
    checkpoint: Mapping[str, Any], name: str | None = None, file: str = "The checkpoint"
) -> Part:
    """One of the networks in a checkpoint.

    The backbone is what stands below the last ``backbone.`` of its network's names, wherever that
    is in them, or all of a network without such names.

    Args:
        checkpoint: from :func:`mixplug.weights.read`.
        name: 'teacher' and 'student' as DINO and DoRA have them; 'ema' of timm; 'model', which is
            none of these. None takes the first in the order of :data:`PARTS`; ``str`` of what is
            returned says which.
        file: what the checkpoint is called in errors.

    Raises:
        ValueError: no such part, or several backbones in it.
    """
    if name is not None and name not in PARTS:
        raise ValueError(f"A part is {listed(PARTS)}, got {name!r}.")
    found = parts(checkpoint)
    chosen = name or next((known for known in PARTS if known in found), None)
    if chosen is None or chosen not in found:
        if not found:
            raise ValueError(f"{file} has no tensors of a network, only {list(checkpoint)[:6]}.")
        raise ValueError(
            f"{file} has no part {name}, only {', '.join(found)}: take that one, or leave out the "
            f"key part of init_cfg (the option --part of a command) for the first there is."
        )
    return found[chosen]


def parts(checkpoint: Mapping[str, Any]) -> dict[str, Part]:
    """All networks in a checkpoint by their names, in the order of :data:`PARTS`.

    Raises:
        ValueError: several backbones in one of them.
    """
    groups: dict[str, dict[tuple[bool, str], dict[str, Tensor]]] = {}
    for key, value in tensors(checkpoint).items():
        owner, is_backbone, prefix, rest = _split(key)
        groups.setdefault(owner, {}).setdefault((is_backbone, prefix), {})[rest] = value
    named = any(is_backbone for is_backbone, _ in groups.get("model", {}))
    if not named and not groups.keys().isdisjoint(("teacher", "student")):
        groups.pop("model", None)  # a center or a counter that stands beside them
    return {name: _part(name, groups[name]) for name in PARTS if name in groups}


def tensors(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of the networks, without those of optimizers and losses; dots join nested names."""
    holders = [key for key in _HOLDERS if isinstance(checkpoint.get(key), Mapping)]
    if not holders:
        return {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    return {
        f"{holder}.{key}": value
        for holder in holders
        for key, value in checkpoint[holder].items()
        if isinstance(value, Tensor)
    }


def _split(key: str) -> tuple[str, bool, str, str]:
    """Owner, whether it is of a backbone, prefix, and the rest of a name."""
    path = key.split(".")
    owned = [i for i, step in enumerate(path[:-1]) if step in _OWNERS]
    owner = _OWNERS[path[owned[-1]]] if owned else "model"
    end = owned[-1] + 1 if owned else 0
    is_backbone = "backbone" in path[end:-1]
    if is_backbone:
        end = path.index("backbone", end) + 1
    while path[end] in _WRAPPERS and end < len(path) - 1:
        end += 1
    prefix = "".join(f"{step}." for step in path[:end])
    return owner, is_backbone, prefix, ".".join(path[end:])


def _part(name: str, groups: Mapping[tuple[bool, str], Mapping[str, Tensor]]) -> Part:
    backbones = {prefix: state for (is_backbone, prefix), state in groups.items() if is_backbone}
    others = {prefix: state for (is_backbone, prefix), state in groups.items() if not is_backbone}
    candidates = backbones or others
    if len(candidates) > 1:
        raise ValueError(
            f"The checkpoint has {len(candidates)} backbones in its part {name!r}, under "
            f"{sorted(candidates)}; one is needed."
        )
    ((prefix, state),) = candidates.items()
    head = {
        key.removeprefix("head."): value
        for other in (others.values() if backbones else ())
        for key, value in other.items()
        if key.startswith("head.")
    }
    return Part(name, prefix, dict(state), head)
