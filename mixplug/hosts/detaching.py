"""Take a mixer off a model after training."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from mixplug.hosts.retype import plain_again
from mixplug.stages.taps import InputTap, OutputTap

Model = TypeVar("Model", bound=nn.Module)


def detach(model: Model) -> Model:
    """Make a model again what it was before a mixer was attached.

    Hooks, methods and the mixer's own parameters (``model.mixup``) are removed, in every host. The
    model can then be scripted, exported, pickled and copied as the plain model can. To train with
    a mixer again, attach a new one. ``Stages`` of this model do not work any more.

    Args:
        model: with or without wrappers, such as DDP.

    Returns:
        The same object.
    """
    for module in list(model.modules()):
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            ours = [key for key, hook in hooks.items() if isinstance(hook, (InputTap, OutputTap))]
            for key in ours:
                del hooks[key]
                _forget(module, key)
        learned = getattr(module, "mixup", None)
        if isinstance(learned, nn.Module) and getattr(learned, "of_mixplug", False):
            del module.mixup
        plain_again(module)
    return model


def _forget(module: nn.Module, key: int) -> None:
    """What torch notes of a hook beside it."""
    for name in ("_forward_hooks_with_kwargs", "_forward_hooks_always_called",
                 "_forward_pre_hooks_with_kwargs"):  # fmt: skip
        getattr(module, name, {}).pop(key, None)
