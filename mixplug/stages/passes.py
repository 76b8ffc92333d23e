"""One pass through a model with functions applied on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from mixplug.layouts import Layout, level_of
from mixplug.stages.forward import Edit, Forward
from mixplug.stages.reading import layout_of, prefix_that_fits
from mixplug.stages.taps import Step, Taps


class Passes:
    """Runs a model with edits at its modules, and checks that they happened.

    Args:
        model: the module that owns the named ones.
        heads: names of its classifiers: one; several, whose outputs the model combines; or none, if
            they are not known.
        layout: how outputs hold a map.
        infer: whether shapes and layers decide how an output holds a map, and ``layout`` only what
            they leave open.

    Raises:
        ValueError: the model has no module of that name; the error lists the nearest names.
    """

    def __init__(
        self, model: nn.Module, heads: Sequence[str], layout: Layout, infer: bool = False
    ) -> None:
        self.model = model
        self.layout = layout
        self.taps = Taps(model, heads)
        self.heads = tuple(heads)
        self._infer = infer
        self._layouts: dict[tuple[object, ...], Layout | None] = {}
        self._size: tuple[int, int] | None = None
        self.head_is_last: bool | None = None  # None until a pass has told

    def edited(
        self,
        call: Callable[[Tensor], object],
        x: Tensor,
        on_outputs: Mapping[str, Sequence[Step]],
        embedding: Edit | None = None,
        dense: str | None = None,
    ) -> Forward:
        """Run the model once.

        Args:
            call: what runs it.
            x: (B, ...) input.
            on_outputs: name of a module to the functions that its output goes through.
            embedding: on the classifier's input, (B, D), or (B, N, D) if dense, to (M, D).
            dense: name of the module after which every position is an example of its own.

        Raises:
            ValueError: a module that was never called, logits that are not one row per example, or
                an edit of embeddings where the classifier is not known or not last.
        """
        if embedding is not None:
            self.require_heads("Embeddings cannot be mixed")
        seen: dict[str, Tensor] = {}
        given: dict[str, Tensor] = {}
        called: set[str] = set()

        def on_embedding(e: Tensor, name: str) -> Tensor:
            flat = e.flatten(1)
            seen[name] = flat if dense is None else flat.unflatten(0, (len(x), -1))
            if embedding is None:
                return e
            new = embedding(seen[name])
            return new.view(*new.shape, *[1] * (e.dim() - 2))

        steps: dict[str, list[Step]] = {
            name: [partial(_note, called, name), *functions]
            for name, functions in on_outputs.items()
        }
        for name in self.heads:
            note = partial(_keep, given, name)
            steps[name] = [partial(_note, called, name), *steps.get(name, [])[1:], note]
        edits = {name: partial(on_embedding, name=name) for name in self.heads}
        with self._of_size(x), self.taps.editing(edits, steps):
            returned = call(x)
        self._require_calls({*on_outputs, *self.heads}, called)
        logits = self._logits(returned, given)
        if dense is not None and embedding is None:
            logits = logits.unflatten(0, (len(x), -1))
        e = torch.cat(list(seen.values()), -1) if seen else logits
        return Forward(logits, e)

    def on_map(self, name: str, edit: Edit, prefix_edit: Edit | None = None) -> Step:
        """A function of maps (B, C, H, W) as a function of the output of module ``name``."""

        def edit_output(output: object) -> object:
            layout = self._layout(name, output)
            prefix = layout.prefix_tokens(output)
            if prefix is not None and prefix_edit is not None:
                prefix = prefix_edit(prefix)
            return layout.restore(output, edit(layout.map(output, self._size)), prefix)

        return edit_output

    def on_positions(self, name: str, edit: Edit) -> Step:
        """As :meth:`on_map`, and then every position is made an example of its own."""

        def split(output: object) -> object:
            layout = self._layout(name, output)
            return layout.positions(output, edit(layout.map(output, self._size)))

        return split

    def read(self, name: str, output: object, x: Tensor | None = None) -> Tensor:
        """The map (B, C, H, W) in the output of module ``name``, within a pass or for images x."""
        if x is not None:
            with self._of_size(x):
                return self.read(name, output)
        return self._layout(name, output).map(output, self._size)

    def layout_at(
        self, name: str, shape: tuple[int, ...], size: tuple[int, int] | None
    ) -> Layout | None:
        """How the output of a module holds its map; None if it holds none that can be read.

        Args:
            name: of the module.
            shape: of its output, of the last level if it is a tuple of levels.
            size: (height, width) of the images, None if the input is no image.
        """
        if not self._infer or size is None:
            return self.layout if len(shape) in (3, 4) else None
        key = (name, *shape[1:], *size)
        if key not in self._layouts:
            self._layouts[key] = layout_of(self.model, name, shape, size, self.layout)
        return self._layouts[key]

    def layout_found(self, name: str | None) -> Layout | None:
        """How a module's output held its map when it was looked at, None if it was not."""
        found = (layout for key, layout in self._layouts.items() if key[0] == name)
        return next(found, None)

    def misreads(self, name: str, shape: tuple[int, ...], size: tuple[int, int] | None) -> bool:
        """Whether the layout that was given contradicts the shape of an output."""
        if self._infer or size is None or len(shape) != 4:
            return False
        seen = layout_of(self.model, name, shape, size, self.layout)
        return seen is not None and seen.channels_last != self.layout.channels_last

    def require_heads(self, what: str) -> None:
        """Raise ValueError if the classifier is not known; ``what`` begins the message."""
        if not self.heads:
            raise ValueError(
                f"{what}: {type(self.model).__name__} has no classifier module whose input is the "
                f"embedding. Mixers of the input work, such as CutMix and InputMixup."
            )

    def _layout(self, name: str, output: object) -> Layout:
        shape = tuple(level_of(output).shape)
        layout = self.layout_at(name, shape, self._size)
        if layout is None:
            images = (
                "" if self._size is None else f" for images of {self._size[0]} x {self._size[1]}"
            )
            raise ValueError(
                f"The output of {name!r}, of shape {shape}{images}, holds no feature map: it needs "
                f"(B, C, H, W), (B, H, W, C) or tokens (B, N, C) of the whole image. "
                f"{self._hint(shape)}"
            )
        return layout

    def _hint(self, shape: tuple[int, ...]) -> str:
        """What to do about an output that cannot be read."""
        if len(shape) == 3 and self._size is not None:
            prefix = prefix_that_fits(shape[1], self._size)
            if prefix is not None:
                return (
                    f"If the first {prefix} of its {shape[1]} tokens are no patches (class token, "
                    f"registers), pass layout=mixplug.Layout(prefix={prefix})."
                )
        return "Name a module before pooling."

    @contextmanager
    def _of_size(self, x: Tensor) -> Iterator[None]:
        before = self._size
        self._size = (x.shape[-2], x.shape[-1]) if x.dim() == 4 else None
        try:
            yield
        finally:
            self._size = before

    def _logits(self, returned: object, given: Mapping[str, Tensor]) -> Tensor:
        """What the model predicts, (B, K): what it returns or, if that is no row, its classifier.

        Whether it returns the mean of what its classifiers give is noted once.
        """
        heads = [output for output in given.values() if _is_rows(output)]
        if not (isinstance(returned, Tensor) and _is_rows(returned)):
            if len(heads) == 1 == len(self.heads):
                return heads[0].flatten(1)
            raise ValueError(self._no_logits(returned, given))
        logits = returned.flatten(1)
        if self.head_is_last is None and heads and len(heads) == len(self.heads):
            mean = torch.stack([head.detach().flatten(1) for head in heads]).mean(0)
            same = mean.shape == logits.shape
            self.head_is_last = same and torch.allclose(
                logits.detach().float(), mean.float(), rtol=1e-3, atol=1e-5, equal_nan=True
            )
        return heads[0].flatten(1) if len(heads) == 1 and self.head_is_last else logits

    def _no_logits(self, returned: object, given: Mapping[str, Tensor]) -> str:
        if len(self.heads) == 1 and self.heads[0] in given:
            shape = tuple(given[self.heads[0]].shape)
            return (
                f"The classifier {self.heads[0]!r} gives {shape} instead of one row of logits per "
                f"example. It must be the last module, after pooling."
            )
        return (
            f"{type(self.model).__name__} returns a {type(returned).__name__} instead of one row "
            f"of logits per example. If it has several heads, let it return their mean, as timm's "
            f"models do after model.set_distilled_training(False)."
        )

    def _require_calls(self, wanted: set[str], called: set[str]) -> None:
        for name in sorted(wanted - called):
            role = "its classifier" if name in self.heads else "the"
            raise ValueError(f"The model's forward never called {role} module {name!r}.")


def _is_rows(t: Tensor) -> bool:
    """Whether it is one row per example; a 1x1 convolution gives (B, K, 1, 1)."""
    return t.dim() >= 2 and t.shape[1:].numel() == t.shape[1]


def _note(called: set[str], name: str, value: object) -> object:
    called.add(name)
    return value


def _keep(given: dict[str, Tensor], name: str, value: Tensor) -> Tensor:
    given[name] = value
    return value
