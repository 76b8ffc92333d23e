"""One pass through a model with functions applied on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mixplug.layouts import Layout
from mixplug.stages.forward import Edit, Forward
from mixplug.stages.head import rows
from mixplug.stages.taps import Step, Taps


class Passes:
    """Runs a model with edits at its modules, and checks that they happened.

    Args:
        model: the module that owns the named ones.
        classifier: name of the last module.
        last: name of the last module before pooling.
        layout: how outputs hold a map.

    Raises:
        ValueError: the model has no module of that name; the error lists the nearest names.
    """

    def __init__(self, model: nn.Module, classifier: str, last: str, layout: Layout) -> None:
        self.model = model
        self.last = last
        self.layout = layout
        self.taps = Taps(model, classifier)
        self._head = classifier
        self._is_last = False

    def edited(
        self,
        call: Callable[[Tensor], object],
        x: Tensor,
        on_maps: Mapping[str, Sequence[Step]],
        embedding: Edit | None = None,
        dense: Edit | None = None,
    ) -> Forward:
        """Run the model once.

        Args:
            call: what runs it.
            x: (B, ...) input.
            on_maps: name of a module to the functions that its output goes through.
            embedding: on the classifier's input, (B, D), or (B, N, D) if dense, to (M, D).
            dense: on the last map, of which every position then becomes an example of its own.

        Raises:
            ValueError: a module that was never called, logits that are not one row per example, or
                that the model changes after its classifier.
        """
        edits = {name: list(functions) for name, functions in on_maps.items()}
        if dense is not None:
            edits.setdefault(self.last, []).extend([self.on_map(dense), self.layout.positions])
        seen: dict[str, Tensor] = {}
        called: set[str] = set()

        def on_embedding(e: Tensor) -> Tensor:
            flat = e.flatten(1)
            seen["e"] = flat if dense is None else flat.unflatten(0, (len(x), -1))
            if embedding is None:
                return e
            new = embedding(seen["e"])
            return new.view(*new.shape, *[1] * (e.dim() - 2))

        def on_logits(logits: Tensor) -> Tensor:
            seen["logits"] = logits
            return logits

        steps: dict[str, list[Step]] = {
            name: [partial(_note, called, name), *functions] for name, functions in edits.items()
        }
        steps[self._head] = [*steps.get(self._head, []), on_logits]
        with self.taps.editing(on_embedding, steps):
            returned = call(x)
        self._require_calls({*edits, self._head}, called | ({self._head} if seen else set()))
        logits = rows(seen["logits"], self._head)
        self._require_last(returned, logits)
        if dense is not None and embedding is None:
            logits = logits.unflatten(0, (len(x), -1))
        return Forward(logits, seen["e"])

    def on_map(self, edit: Edit, prefix_edit: Edit | None = None) -> Step:
        """A function of maps (B, C, H, W) as a function of a module's output."""

        def edit_output(output: object) -> object:
            prefix = self.layout.prefix_tokens(output)
            if prefix is not None and prefix_edit is not None:
                prefix = prefix_edit(prefix)
            return self.layout.restore(output, edit(self.layout.map(output)), prefix)

        return edit_output

    def _require_calls(self, wanted: set[str], called: set[str]) -> None:
        for name in sorted(wanted - called):
            role = "its classifier" if name == self._head else "the"
            raise ValueError(f"The model's forward never called {role} module {name!r}.")

    def _require_last(self, returned: object, logits: Tensor) -> None:
        """Check once that the model returns what its classifier gives."""
        if self._is_last or not isinstance(returned, Tensor) or returned.shape != logits.shape:
            return
        if not torch.allclose(returned.detach(), logits.detach(), equal_nan=True):
            raise ValueError(
                f"The model changes its logits after the classifier {self._head!r}, so mixing at "
                f"that module is not mixing its output. Return the logits as they are."
            )
        self._is_last = True


def _note(called: set[str], name: str, value: object) -> object:
    called.add(name)
    return value
