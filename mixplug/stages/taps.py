"""Taps: hooks at named modules that edit what flows there, in one pass and only in that pass."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Step = Callable[[Any], Any]


class _Tap:
    """A hook that calls ``edit`` on what flows at its module, and does nothing while that is None.

    It is an object and not a closure, so that a copied or pickled model has taps of its own.
    """

    def __init__(self) -> None:
        self.edit: Step | None = None


class InputTap(_Tap):
    """Edits the first argument of its module."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """As torch calls a forward pre-hook."""
        return None if self.edit is None else (self.edit(args[0]), *args[1:])


class OutputTap(_Tap):
    """Edits the output of its module."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object) -> object | None:
        """As torch calls a forward hook."""
        return None if self.edit is None else self.edit(output)


class Taps:
    """The taps of one model.

    Args:
        model: the module that owns the named ones.
        heads: names of the modules whose inputs have taps; taps of outputs are made on demand.

    Raises:
        ValueError: the model has no module of that name; the error lists the nearest names.
    """

    def __init__(self, model: nn.Module, heads: Sequence[str]) -> None:
        self._model = model
        self._outputs: dict[str, OutputTap] = {}
        self._inputs = {name: InputTap() for name in heads}
        for name, tap in self._inputs.items():
            self.module(name).register_forward_pre_hook(tap)

    def module(self, name: str) -> nn.Module:
        """The module of that name, or a ValueError that lists the nearest names."""
        modules: dict[str, nn.Module] = dict(self._model.named_modules())
        if name in modules and name:
            return modules[name]
        nearest = difflib.get_close_matches(name, modules, n=4, cutoff=0.3)
        raise ValueError(
            f"{type(self._model).__name__} has no module {name!r}. "
            f"Nearest: {', '.join(map(repr, nearest)) or 'none, see model.named_modules()'}."
        )

    def prepare(self, name: str) -> OutputTap:
        """The tap at the output of a named module, registered when first asked for."""
        if name not in self._outputs:
            module = self.module(name)
            self._outputs[name] = OutputTap()
            module.register_forward_hook(self._outputs[name])
        return self._outputs[name]

    @contextmanager
    def editing(
        self, on_inputs: Mapping[str, Step], on_outputs: Mapping[str, Sequence[Step]]
    ) -> Iterator[None]:
        """Within this context the taps apply these edits and no others.

        Contexts may be nested: the inner pass does not see the edits of the outer one, which come
        back when it ends.

        Args:
            on_inputs: name of a head to what is done with its input.
            on_outputs: name of a module to the functions that its output goes through, in turn.
        """
        if "torch._dynamo" in sys.modules:
            _keep_eager()
        edits: dict[_Tap, Step] = {
            self.prepare(name): _chain(steps) for name, steps in on_outputs.items()
        }
        edits |= {self._inputs[name]: step for name, step in on_inputs.items()}
        taps: list[_Tap] = [*self._inputs.values(), *self._outputs.values()]
        before = [tap.edit for tap in taps]
        try:
            for tap in taps:
                tap.edit = edits.get(tap)
            yield
        finally:
            for tap, edit in zip(taps, before, strict=True):
                tap.edit = edit


@functools.cache
def _keep_eager() -> None:
    """Make a compiled model break its graph at the taps, whose edits change from step to step.

    Also make Dynamo distinguish modules with a tap from modules without. By default it compiles the
    first of several equal blocks and runs the result for all, also for the block that has a tap.

    This is done once something has been compiled: to import Dynamo takes longer than to import
    torch.
    """
    for tap in (InputTap, OutputTap):
        tap.__call__ = torch.compiler.disable(tap.__call__)  # type: ignore[method-assign]
    torch._dynamo.config.skip_nnmodule_hook_guards = False


def _chain(functions: Sequence[Step]) -> Step:
    def run(value: object) -> object:
        for function in functions:
            value = function(value)
        return value

    return run
