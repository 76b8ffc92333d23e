"""Checks of what a method of self-distillation is given: settings, views, names, checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mixplug.models.self_distillation.dino_head import own_name
from mixplug.models.self_distillation.views import Views

REDUCTIONS = ("mean", "sum")


def require(owner: str, holds: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a setting.

    Raises:
        ValueError: ``holds`` is False.
    """
    if not holds:
        raise ValueError(f"{owner} needs {key} {allowed}, got {value!r}.")


def require_views(owner: str, views: Views) -> None:
    """Refuse views whose shapes do not fit together.

    Raises:
        ValueError: with both shapes.
    """
    large, small = views.large, views.small
    fits = small is None or (small.dim() == 6 and small.shape[1:4] == large.shape[1:4])
    if large.dim() != 6 or len(large) != 2 or not fits:
        raise ValueError(
            f"{owner} needs large views (2, B, T, 3, H, W) and small ones "
            f"(m, B, T, 3, h, w) or None, got {tuple(large.shape)} and "
            f"{None if small is None else tuple(small.shape)}."
        )


def require_names(owner: str, losses: Iterable[str], monitors: Iterable[str]) -> None:
    """Refuse names that training loops would sum wrongly, since they find losses by their names.

    Raises:
        ValueError: the name of a loss does not start with 'loss', or that of a monitor has it.
    """
    wrong = [name for name in losses if not name.startswith("loss")]
    if wrong:
        raise ValueError(
            f"The names of the losses of {owner} need to start with 'loss', got {wrong[0]!r}."
        )
    wrong = [name for name in monitors if "loss" in name]
    if wrong:
        raise ValueError(
            f"The names of the monitors of {owner} must not contain 'loss', got {wrong[0]!r}: "
            f"training loops would add it to the loss."
        )


def require_same_tensors(method: nn.Module, state: Mapping[str, Tensor], prefix: str) -> None:
    """Refuse a checkpoint of which some framework would silently load only a part.

    Args:
        method: that loads the checkpoint.
        state: tensors by name.
        prefix: of the method's names in ``state``; other names are not looked at.

    Raises:
        ValueError: names or shapes differ; the message has the first three.
    """
    theirs = {
        own_name(name.removeprefix(prefix)): tuple(tensor.shape)
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    own = {name: tuple(tensor.shape) for name, tensor in method.state_dict().items()}
    wrong = [n for n in {**own, **theirs} if own.get(n) != theirs.get(n)]
    if wrong:
        few = [f"{n}: {theirs.get(n, 'none')} there, {own.get(n, 'none')} here" for n in wrong]
        more = f"; and {len(few) - 3} more" if len(few) > 3 else ""
        raise ValueError(
            f"The checkpoint is of another architecture than this {type(method).__name__}. "
            f"{'; '.join(few[:3])}{more}. `mixplug weights` compares and converts backbones."
        )
