"""A host model seen in stages: input x -> feature map A -> embedding e -> logits.

The model's own forward runs once, with functions applied on the way: taps at named modules hand
what flows there to a mixer and take back what it makes of it. So whatever lies between features
and classifier (norm, pooling, dropout, further blocks) stays the model's own business, and the
model's class, parameters and state dict stay as they are.
"""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mixplug.layouts import Layout

Edit = Callable[[Tensor], Tensor]
_Step = Callable[[Any], Any]


@dataclass(frozen=True)
class Forward:
    """One pass through the model: logits (B, K) and embedding (B, D); (B, N, .) if dense."""

    logits: Tensor
    embedding: Tensor


class _Tap:
    """A hook that hands what flows at a module to ``edit`` while that is set, else does nothing.

    An object and not a closure, so that a copied or pickled model has idle taps of its own.
    """

    def __init__(self) -> None:
        self.edit: Callable[[Any], Any] | None = None


class _InputTap(_Tap):
    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self.edit is None else (self.edit(args[0]), *args[1:])


class _OutputTap(_Tap):
    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object) -> object | None:
        return None if self.edit is None else self.edit(output)


@functools.cache
def _keep_eager() -> None:
    """Have a compiled model break its graph at the taps: what they do changes from step to step.

    Done when something has compiled, since the import of Dynamo takes longer than that of torch.
    """
    for tap in (_InputTap, _OutputTap):
        tap.__call__ = torch.compiler.disable(tap.__call__)  # type: ignore[method-assign]


class Tail(Protocol):
    """The part of a model from its last map to the embedding, as a function of its own."""

    def prepare(self) -> None:
        """Have the model keep its last map from now on."""

    def take(self) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The map of the last pass (B, ...), and the function from such maps to (B, D)."""


class Stages:
    """Any ``nn.Module`` in stages, by the names of its feature and classifier modules.

    ::

        stages = Stages(torchvision.models.resnet18(), features="layer4.0", classifier="fc")
        stages(x).logits                                          # the model as it is
        stages(x, features=lambda a: mix(a, a.flip(0), 0.3))      # mixed in between

    Args:
        model: the module that owns the named ones.
        features: name of the module whose output is the map A to be mixed. AlignMixup wants a
            block between it and pooling, see :func:`mixplug.blocks.before_last_block`.
        classifier: name of the last module, whose input is e and whose output the logits.
        last: name of the last module before pooling, where a dense loss splits the map into
            positions; ``features`` if not given.
        layout: how these outputs hold the map.
        call: runs the model on x, if not ``model(x)`` (under DDP or compiled, say).
        tail: how to run what lies between the last map and the embedding, for losses that mix
            maps; None where the host has no such function.

    Raises:
        ValueError: a name that the model does not have; it lists the nearest.
    """

    def __init__(
        self,
        model: nn.Module,
        features: str,
        classifier: str,
        last: str | None = None,
        layout: Layout | None = None,
        call: Callable[[Tensor], object] | None = None,
        tail: Tail | None = None,
    ) -> None:
        self.model = model
        self.features = features
        self.last = last or features
        self.layout = layout or Layout()
        self.call = call or model
        self.tail = tail
        self.learned: nn.Module | None = None
        self.judged: set[str] = set()  # maps of which it is known whether only pooling follows
        self._is_last = False
        self._watch = _NanWatch()
        self._outputs: dict[str, _OutputTap] = {}
        self._input = _InputTap()
        self.classifier = self._module(classifier)
        self.classifier.register_forward_pre_hook(self._input)
        self._head = classifier
        for name in (classifier, self.features, self.last):
            self._tap(name)

    @property
    def linear(self) -> nn.Linear | nn.Conv2d | None:
        """The classifier if it is linear (also as a 1x1 convolution), so that mixing commutes."""
        head = self.classifier
        if isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward:
            return head
        if isinstance(head, nn.Conv2d) and type(head).forward is nn.Conv2d.forward:
            return head if head.kernel_size == (1, 1) and head.groups == 1 else None
        return None

    @property
    def embed_dim(self) -> int:
        """D, as the classifier declares it."""
        return self._declared("the width of the embedding", "in_features", "in_channels")

    @property
    def num_classes(self) -> int:
        """K, as the classifier declares it."""
        return self._declared("the number of classes", "out_features", "out_channels")

    def _declared(self, what: str, *names: str) -> int:
        head = self.classifier
        width = next((getattr(head, name) for name in names if hasattr(head, name)), None)
        if width is None:
            raise ValueError(
                f"What a mixer learns itself needs {what}, which the classifier "
                f"{type(head).__name__} does not declare ({' or '.join(names)})."
            )
        return int(width)

    def require(self, name: str) -> None:
        """Prepare an edit at a further named module; ValueError if the model has none such."""
        self._tap(name)

    def learn(self, module: nn.Module) -> None:
        """Register a mixer's own module on the model as ``mixup``; do it before the optimizer."""
        if hasattr(self.model, "mixup") and self.learned is None:
            raise ValueError(
                f"{type(self.model).__name__} has an attribute 'mixup' of its own, under which the "
                f"mixer's parameters would be saved. Rename it."
            )
        self.model.add_module("mixup", module)
        self.learned = module

    def __call__(
        self,
        x: Tensor,
        features: Edit | None = None,
        prefix: Edit | None = None,
        embedding: Edit | None = None,
        layers: Mapping[str, Edit] | None = None,
        dense: Edit | None = None,
        at: str | None = None,
    ) -> Forward:
        """Run the model once, with functions applied on the way.

        Args:
            x: (B, ...) input.
            features: on the map A (B, C, H, W); may change H, W.
            prefix: on the tokens (B, P, C) beside the map, if there are any.
            embedding: on e, (B, D), or (B, N, D) if dense, to (M, D).
            layers: on a named module's output as it is.
            dense: on the last map, of which every position then becomes an example of its own.
            at: another module's name in place of ``features``.

        Raises:
            ValueError: a module that was never called, or an output without a map.
        """
        edits: dict[str, list[_Step]] = {name: [edit] for name, edit in (layers or {}).items()}
        if features is not None:
            edits.setdefault(at or self.features, []).append(self._on_map(features, prefix))
        if dense is not None:
            edits.setdefault(self.last, []).append(self._on_map(dense, None))
            edits[self.last].append(self.layout.positions)
        return self._run(x, edits, embedding, dense is not None)

    def with_map(self, x: Tensor, at: str | None = None) -> tuple[Forward, Tensor]:
        """One pass through the model as it is, and the map (B, C, H, W) that it made on its way.

        Args:
            x: (B, ...) input.
            at: name of the module whose map it is; None is ``features``.

        Raises:
            ValueError: as in a call.
        """
        seen: list[Tensor] = []

        def see(a: Tensor) -> Tensor:
            seen.append(a)
            return a

        return self(x, features=see, at=at), seen[0]

    def again(self, x: Tensor) -> Tensor:
        """Embeddings (B', D) of further examples within a step, by the model itself.

        Not by ``call``: DDP prepares a step, and sends its buffers round, in its first pass only.
        """
        call, self.call = self.call, self.model
        try:
            return self._run(x, {}, None, dense=False).embedding
        finally:
            self.call = call

    def check(self, what: str) -> None:
        """Raise ValueError if the embeddings of the last pass hold a NaN.

        At once on the CPU. On an accelerator at the next pass, since to look is to wait for it.
        """
        self._watch.check(what)

    def _run(
        self, x: Tensor, edits: Mapping[str, list[_Step]], embedding: Edit | None, dense: bool
    ) -> Forward:
        seen: dict[str, Tensor] = {}
        called: set[str] = set()

        def on_embedding(e: Tensor) -> Tensor:
            flat = e.flatten(1)
            seen["e"] = flat.unflatten(0, (len(x), -1)) if dense else flat
            if embedding is None:
                return e
            new = embedding(seen["e"])
            return new.view(*new.shape, *[1] * (e.dim() - 2))

        def on_logits(logits: Tensor) -> Tensor:
            seen["logits"] = logits
            return logits

        if "torch._dynamo" in sys.modules:
            _keep_eager()
        steps: dict[str, list[_Step]] = {
            name: [partial(_note, called, name), *functions] for name, functions in edits.items()
        }
        steps[self._head] = [*steps.get(self._head, []), on_logits]
        try:
            self._input.edit = on_embedding
            for name, functions in steps.items():
                self._tap(name).edit = _chain(functions)
            returned = self.call(x)
        finally:
            self._input.edit = None
            for tap in self._outputs.values():
                tap.edit = None
        self._require_calls({*edits, self._head}, called | ({self._head} if seen else set()))
        self._watch.see(seen["e"])
        logits = self._flat(seen["logits"])
        self._require_last(returned, logits)
        if dense and embedding is None:
            logits = logits.unflatten(0, (len(x), -1))
        return Forward(logits, seen["e"])

    def _require_calls(self, wanted: set[str], called: set[str]) -> None:
        for name in sorted(wanted - called):
            role = "its classifier" if name == self._head else "the"
            raise ValueError(f"The model's forward never called {role} module {name!r}.")

    def _require_last(self, returned: object, logits: Tensor) -> None:
        """Once: what the model returns must be what its classifier gives."""
        if self._is_last or not isinstance(returned, Tensor) or returned.shape != logits.shape:
            return
        if not torch.allclose(returned.detach(), logits.detach(), equal_nan=True):
            raise ValueError(
                f"The model changes its logits after the classifier {self._head!r}, so mixing at "
                f"that module is not mixing its output. Return the logits as they are."
            )
        self._is_last = True

    def _flat(self, logits: Tensor) -> Tensor:
        """Logits as (B, K); a 1x1 convolution gives (B, K, 1, 1)."""
        if logits.dim() < 2 or logits[0, 0].numel() != 1:
            raise ValueError(
                f"The classifier {self._head!r} gives {tuple(logits.shape)}, and not one row of "
                f"logits per example. It must be the last module, after pooling."
            )
        return logits.flatten(1)

    def _on_map(self, edit: Edit, prefix_edit: Edit | None) -> Callable[[object], object]:
        def edit_output(output: object) -> object:
            prefix = self.layout.prefix_tokens(output)
            if prefix is not None and prefix_edit is not None:
                prefix = prefix_edit(prefix)
            return self.layout.restore(output, edit(self.layout.map(output)), prefix)

        return edit_output

    def _tap(self, name: str) -> _OutputTap:
        if name not in self._outputs:
            module = self._module(name)
            self._outputs[name] = _OutputTap()
            module.register_forward_hook(self._outputs[name])
        return self._outputs[name]

    def _module(self, name: str) -> nn.Module:
        modules: dict[str, nn.Module] = dict(self.model.named_modules())
        if name in modules and name:
            return modules[name]
        nearest = difflib.get_close_matches(name, modules, n=4, cutoff=0.3)
        raise ValueError(
            f"{type(self.model).__name__} has no module {name!r}. "
            f"Nearest: {', '.join(map(repr, nearest)) or 'none, see model.named_modules()'}."
        )


class _NanWatch:
    """Looks for NaN where that does not wait for an accelerator."""

    def __init__(self) -> None:
        self._flag: Tensor | None = None
        self._pending: tuple[Tensor, str] | None = None

    def see(self, embedding: Tensor) -> None:
        self._flag = embedding.detach().isnan().any()

    def check(self, what: str) -> None:
        pending, self._pending = self._pending, None
        flag, self._flag = self._flag, None
        if flag is not None and flag.device.type == "cpu":
            pending = (flag, what)
        elif flag is not None:
            self._pending = (flag, what)
        if pending is not None and bool(pending[0]):
            late = " This was noticed one step late." if pending[0].device.type != "cpu" else ""
            raise ValueError(
                f"{pending[1]}: the features that reach the classifier are NaN. The input, the "
                f"learning rate or mixed precision is the usual cause.{late}"
            )


def _note(called: set[str], name: str, value: object) -> object:
    called.add(name)
    return value


def _chain(functions: list[_Step]) -> Callable[[object], object]:
    def run(value: object) -> object:
        for function in functions:
            value = function(value)
        return value

    return run
