"""Run a model beside a training step without leaving a trace of it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Run ``model`` in evaluation mode within this context; afterwards everything is as before.

    Restored are the mode of every module and the states of the random generators. Batch norm uses
    its running averages and does not update them. Compiled parts run eagerly, so nothing is
    compiled again.

    Args:
        model: the network without wrappers.
        device: where it runs.
    """
    with _evaluating(model), generators_kept(device), _eager(), _autocast_uncached():
        yield


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Give the random generators of torch, Python and numpy their states back afterwards."""
    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = None if numpy is None else numpy.random.get_state()
    with ExitStack() as stack:
        if device.type == "mps":
            stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        if device.type in ("cpu", "mps", "meta"):
            stack.enter_context(torch.random.fork_rng([]))
        else:
            stack.enter_context(torch.random.fork_rng([device], device_type=device.type))
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy is not None:
                numpy.random.set_state(numpy_state)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set the flags themselves: hosts override ``train()``, to count epochs or to freeze layers."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _eager() -> AbstractContextManager[object]:
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def _autocast_uncached() -> Iterator[None]:
    """Keep casts of weights out of autocast's cache.

    In older versions of torch, the step that follows would take casts from there that were made
    without gradients, and its weights would get none (pytorch issues 65766 and 112583).
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
