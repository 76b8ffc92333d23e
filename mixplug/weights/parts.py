"""Find the backbone in a checkpoint, and strip the prefixes of its framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mixplug.names import listed

PARTS = ("teacher", "ema", "model", "student")  # in order of preference
_OWNERS = {"teacher": "teacher", "student": "student"} | dict.fromkeys(
    ("state_dict_ema", "model_ema", "ema_model"), "ema"
)
_OUTER = dict.fromkeys(("ema", "swa_model", "averaged_model"), "ema")  # only as outermost names
_HOLDERS = ("state_dict", "model", "module", *_OWNERS, *_OUTER)
_WRAPPERS = ("state_dict", "model", "module", "_orig_mod", "timm_model")
_INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # between two names
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside the network


@dataclass(frozen=True)
class Part:
    """One of the networks in a checkpoint.

    Attributes:
        name: one of :data:`PARTS`.
        prefix: prefix of the backbone's names in the file, with the dot; '' without a prefix.
        backbone: tensors of the backbone, without the prefix; names are otherwise as in the file.
        head: tensors of the head after the backbone, without the prefix.
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

    The backbone consists of all names below the last ``backbone.`` in the names of the network.
    Without such names, the whole network is the backbone.

    Args:
        checkpoint: result of :func:`mixplug.weights.read`.
        name: 'teacher' or 'student' of DINO and DoRA, 'ema' of timm, or 'model' for a network that
            is none of these. None takes the first existing one in the order of :data:`PARTS`;
            ``str`` of the result names it.
        file: name of the checkpoint in error messages.

    Raises:
        ValueError: a missing part, or several backbones in the part.
    """
    if name is not None and name not in PARTS:
        raise ValueError(f"part must be {listed(PARTS)}; got {name!r}.")
    found = parts(checkpoint)
    chosen = name or next((known for known in PARTS if known in found), None)
    if chosen is None or chosen not in found:
        if not found:
            raise ValueError(
                f"{file} has no tensors of a network, only the keys {list(checkpoint)[:6]}."
            )
        raise ValueError(
            f"{file} has no part {name}. It has: {', '.join(found)}. Choose one of these, or omit "
            f"the key part of init_cfg (--part on the command line) to use the first one."
        )
    return found[chosen]


def parts(checkpoint: Mapping[str, Any]) -> dict[str, Part]:
    """All networks in a checkpoint by name, in the order of :data:`PARTS`.

    Raises:
        ValueError: a network with several backbones.
    """
    groups: dict[str, dict[tuple[bool, str], dict[str, Tensor]]] = {}
    for key, value in tensors(checkpoint).items():
        if key.rpartition(".")[2] == _COUNTER:
            continue
        owner, is_backbone, prefix, rest = _split(key)
        groups.setdefault(owner, {}).setdefault((is_backbone, prefix), {})[rest] = value
    named = any(is_backbone for is_backbone, _ in groups.get("model", {}))
    if not named and not groups.keys().isdisjoint(("teacher", "student")):
        groups.pop("model", None)  # not a network, but a center or a counter beside the others
    return {name: _part(name, groups[name]) for name in PARTS if name in groups}


def tensors(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of the networks, without those of optimizers and losses; dots join nested names."""
    holders = [key for key in _HOLDERS if isinstance(checkpoint.get(key), Mapping)]
    if not holders:
        return {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    return {
        f"{holder}.{key}": value for holder in holders for key, value in _within(checkpoint[holder])
    }


def _within(holder: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a holder, and of one in it, as in ``{'ema': {'module': {...}}}``."""
    for key, value in holder.items():
        if isinstance(value, Tensor):
            yield key, value
        elif key in _WRAPPERS and isinstance(value, Mapping):
            yield from ((f"{key}.{name}", t) for name, t in value.items() if isinstance(t, Tensor))


def _split(key: str) -> tuple[str, bool, str, str]:
    """Split a name into owner, whether it belongs to a backbone, prefix, and rest."""
    path = key.split(".")
    owned = [i for i, step in enumerate(path[:-1]) if step in _OWNERS]
    owner = _OWNERS[path[owned[-1]]] if owned else "model"
    end = owned[-1] + 1 if owned else 0
    outer = 1 if path[0] == "state_dict" else 0
    if not owned and path[outer] in _OUTER and len(path) > outer + 1:
        owner, end = _OUTER[path[outer]], outer + 1
    is_backbone = "backbone" in path[end:-1]
    if is_backbone:
        end = path.index("backbone", end) + 1
    while path[end] in _WRAPPERS and end < len(path) - 1:
        end += 1
    prefix = "".join(f"{step}." for step in path[:end])
    rest = ".".join(step for step in path[end:] if step not in _INSIDE)
    return owner, is_backbone, prefix, rest


def _part(name: str, groups: Mapping[tuple[bool, str], Mapping[str, Tensor]]) -> Part:
    backbones = {prefix: state for (is_backbone, prefix), state in groups.items() if is_backbone}
    others = {prefix: state for (is_backbone, prefix), state in groups.items() if not is_backbone}
    candidates = backbones or others
    if len(candidates) > 1:
        raise ValueError(
            f"The part {name!r} of the checkpoint must have one backbone, got {len(candidates)}: "
            f"{sorted(candidates)}."
        )
    ((prefix, state),) = candidates.items()
    head = {
        key.removeprefix("head."): value
        for other in (others.values() if backbones else ())
        for key, value in other.items()
        if key.startswith("head.")
    }
    return Part(name, prefix, dict(state), head)
