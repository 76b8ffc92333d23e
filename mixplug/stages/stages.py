"""A host's model in stages: input x -> feature map A -> embedding e -> logits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mixplug.layouts import Layout
from mixplug.stages.attention import KeptAttention, class_attention
from mixplug.stages.forward import Edit, Forward, Tail
from mixplug.stages.frozen import FrozenNetworks
from mixplug.stages.head import declared, linear_head
from mixplug.stages.of_0_1 import is_old, renew
from mixplug.stages.passes import Passes
from mixplug.stages.pixels import Normalization, Pixels
from mixplug.stages.placement import DENSE, WHOLE, Need, Places
from mixplug.stages.probe import Probe, look
from mixplug.stages.taps import Step
from mixplug.stages.watch import Watch

_MIXED, _SPLIT = Need("A", (WHOLE,)), Need("last", (WHOLE, DENSE))


class Stages:
    """Any ``nn.Module`` in stages, by the names of its feature and classifier modules.

    ::

        stages = Stages(torchvision.models.resnet18(), features="layer4.0", classifier="fc")
        stages(x).logits                                          # the model as it is
        stages(x, features=lambda a: mix(a, a.flip(0), 0.3))      # mixed in between

    Args:
        model: the module that owns the named ones.
        features: name of the module whose output is the map A to be mixed. AlignMixup needs a
            block between it and pooling, see :func:`mixplug.blocks.before_last_block`.
        classifier: name of the last module. Its input is e and its output the logits. Several names
            if the model returns the mean of several heads; None if there is no such module, which
            leaves only mixers of the input.
        last: name of the last module before pooling, where a dense loss splits the map into
            positions; ``features`` if not given.
        layout: how these outputs hold the map; None reads it from their shapes.
        call: runs the model on x, if not ``model(x)``: the model wrapped in DDP, or compiled.
        tail: how to run what lies between the last map and the embedding, for losses that mix
            maps; None where the host has no such function.
        pixels: (mean, std) by which x was normalized, see :attr:`pixels`; or a function that gives
            them once they are known.
        search: whether ``features`` and ``last`` are suggestions, from which :meth:`place` moves
            on to modules at which a mix holds. ``layout`` then says only what shapes leave open.
        strict: whether a place at which a mix does not hold is an error, or a warning.

    Attributes:
        learned: the mixer's own module on the model, None if it has none.
        frozen: the mixer's frozen helper networks by name.

    Raises:
        ValueError: the model has no module of that name; the error lists the nearest names.
    """

    def __init__(
        self,
        model: nn.Module,
        features: str | None,
        classifier: str | Sequence[str] | None,
        last: str | None = None,
        layout: Layout | None = None,
        call: Callable[[Tensor], object] | None = None,
        tail: Tail | None = None,
        pixels: Pixels | Callable[[], Pixels | None] | None = None,
        search: bool = False,
        strict: bool = True,
    ) -> None:
        self.model = model
        self.features = features
        self.last = last or features
        self.layout = layout or Layout()
        self.call = model if call is None else call
        self.tail = tail
        self.learned: nn.Module | None = None
        self.frozen = FrozenNetworks(model)
        self._watch = Watch()
        self._pixels = Normalization(pixels)
        self._attention = KeptAttention()
        heads = [classifier] if isinstance(classifier, str) else list(classifier or ())
        self._passes = Passes(model, heads, self.layout, infer=search or layout is None)
        self._places = Places(self._passes, search, strict)
        for name in (*heads, self.features, self.last):
            if name is not None:
                self.require(name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle; attributes of mixplug 0.1 wait until one of today's is asked for."""
        self.__dict__.update({"_old": state} if is_old(state) else state)

    def __getattr__(self, name: str) -> Any:
        """Build what mixplug 0.1 pickled again, now that its model is complete."""
        old = None if name.startswith("__") else self.__dict__.pop("_old", None)
        if old is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        renew(self, old)
        return getattr(self, name)

    @property
    def classifier(self) -> nn.Module | None:
        """The classifier; None if there are several, or none."""
        heads = self._passes.heads
        return self._passes.taps.module(heads[0]) if len(heads) == 1 else None

    @functools.cached_property
    def _linear_heads(self) -> list[nn.Linear | nn.Conv2d | None]:
        return [linear_head(self._passes.taps.module(name)) for name in self._passes.heads]

    @property
    def linear(self) -> nn.Linear | nn.Conv2d | None:
        """The classifier if it is linear (also as a 1x1 convolution) and the only one."""
        heads = self._linear_heads
        return heads[0] if len(heads) == 1 else None

    @property
    def commutes(self) -> bool:
        """Whether mixing logits is mixing embeddings.

        It is if all classifiers are linear and the model returns their mean.
        """
        heads = self._linear_heads
        linear = bool(heads) and all(head is not None for head in heads)
        return linear and self._passes.head_is_last is not False

    @property
    def embed_dim(self) -> int:
        """D, as the classifier declares it."""
        width = "the width of the embedding"
        return sum(declared(head, width, "in_features", "in_channels") for head in self._heads)

    @property
    def num_classes(self) -> int:
        """K, as the classifier declares it."""
        classes = "the number of classes"
        return declared(self._heads[0], classes, "out_features", "out_channels")

    @property
    def _heads(self) -> list[nn.Module]:
        self._passes.require_heads("A mixer with parameters needs the width of the embedding")
        return [self._passes.taps.module(name) for name in self._passes.heads]

    @property
    def pixels(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation by which the host normalized x, (C, 1, 1) each.

        ``x * std + mean`` are the images in [0, 1], in every host. The tensors are on the model's
        device.

        Raises:
            ValueError: they are not known; the error says what to pass.
        """
        return self._pixels.on(next(self.model.parameters()).device)

    def require(self, name: str) -> None:
        """Prepare an edit at a further named module; ValueError if the model has no such module."""
        self._passes.taps.prepare(name)

    def require_embedding(self, what: str) -> None:
        """Raise ValueError if no classifier is known, whose input would be the embedding."""
        self._passes.require_heads(what)

    def place(self, needs: Sequence[Need], x: Tensor) -> None:
        """Check once that a mix holds at the places where a mixer mixes.

        With ``search`` the map A and the last map move to modules at which it holds.

        Args:
            needs: places, and what has to hold there.
            x: the first batch that is mixed, of which shape, dtype and device are used.

        Raises:
            ValueError: a place at which it does not hold; the error names one at which it does.
        """
        found = self._places.settle(needs, x, {"A": self.features, "last": self.last})
        self.features, self.last = found["A"], found["last"]
        for name in (self.features, self.last):
            if name is not None:
                self.require(name)
        self.layout = self._passes.layout_found(self.last) or self.layout

    def _place_used(self, x: Tensor, a: bool, last: bool, named: object) -> None:
        """In a host, place what a pass edits and no mixer has placed.

        Where modules are named, names of both may be among them, so both are placed if they can be.
        """
        for need, used in ((_MIXED, a), (_SPLIT, last)):
            if (used or named) and self._places.open_to(need):
                try:
                    self.place([need], x)
                except ValueError:
                    if used:
                        raise

    def learn(self, module: nn.Module) -> None:
        """Register a mixer's own module on the model as ``mixup``; do it before the optimizer."""
        if hasattr(self.model, "mixup") and self.learned is None:
            raise ValueError(
                f"{type(self.model).__name__} has an attribute 'mixup' of its own, under which the "
                f"mixer's parameters would be saved. Rename it."
            )
        vars(module)["of_mixplug"] = True  # the model may have another one of this name
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
        edits = {"features": features, "prefix": prefix, "embedding": embedding, "dense": dense}
        forward = self._forward(self.call, x, layers=layers, at=at, **edits)
        self._watch.see(forward.embedding)
        return forward

    def again(self, x: Tensor, **edits: Any) -> Forward:
        """A further pass within a step, by the model itself and not by ``call``.

        DDP prepares a step, and sends its buffers to all ranks, in the pass through its wrapper. A
        method that also trains on the clean batch runs ``stages(x)`` first, then
        ``stages.again(mixed)``, then one backward pass over the sum of both losses. Every parameter
        then gets the gradient of the sum, and DDP averages it over the ranks once. In the other
        order, DDP would overwrite buffers that the backward pass needs, and torch raises an error.

        :meth:`attention` is that of this pass from now on. Read it before, if that of the earlier
        pass is needed.

        Args:
            x: (B', ...) input.
            **edits: as in a call.
        """
        forward = self._forward(self.model, x, **edits)
        self._watch.see(forward.embedding, further=True)
        return forward

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

    def read(self, output: Tensor, x: Tensor) -> Tensor:
        """The map (B, C, H, W) in an output that holds it as the last map's module does.

        Args:
            output: (B, C, H, W), (B, H, W, C) or tokens.
            x: the images of that pass.

        Raises:
            ValueError: it cannot be read.
        """
        return self._passes.read(self.last or "", output, x)

    def probe(
        self,
        x: Tensor,
        y: Tensor | None = None,
        want: Collection[str] = ("input_grad",),
        criterion: object = None,
        at: str | None = None,
        block: int | None = None,
    ) -> Probe:
        """One pass beside the step, for mixers that look before they mix.

        The model runs in evaluation mode and without the host's wrappers (DDP, compile). Nothing of
        it changes: no mode of a module, no buffer, no gradient of a parameter, no random generator.
        The cost is about a third of a training step, or two thirds with an input gradient.

        Args:
            x: (B, ...) input.
            y: targets as class indices (B,) or rows (B, K), for 'input_grad'.
            want: names of what to look at: 'input_grad', the gradient with respect to x of the loss
                summed over examples; 'logits', (B, K); 'map', (B, C, H, W); 'attention',
                class-to-patch attention (B, N), for which nothing needs to be prepared.
            criterion: the loss, as in :func:`mixplug.criterion.as_criterion`; None is the
                cross-entropy.
            at: name of the module whose map is wanted; None is the last map before pooling.
            block: index of the block whose attention is wanted; None is the last.

        Raises:
            ValueError: unknown names, no targets for a gradient, no such map or attention.
        """
        at = at or self.last
        if at is None and "map" in want:
            at = self._named(at, "last map")
        return look(self._passes, x, y, want, criterion, at, block)

    def keep_attention(self, block: int | None = None) -> None:
        """Make every pass keep the attention of a block, for :meth:`attention`.

        A mixer calls it in its ``attach``, before the model is compiled or wrapped. So a model
        without such attention is refused before training.

        Args:
            block: index among the blocks that have class attention, negative from the end; None is
                the last.

        Raises:
            ValueError: see :func:`mixplug.stages.attention.class_attention`.
        """
        attention = class_attention(self.model, self.layout, block)
        self.require(attention.projection)
        self._attention.keep(block, attention)

    def attention(self, block: int | None = None) -> Tensor:
        """Class-to-patch attention of the latest pass, (B, N): mean over heads, detached, float32.

        The latest pass is a call, or :meth:`again` after it: every pass replaces what the one
        before it left, which a tensor that was already read keeps. A probe does not count.

        It is computed again from the block's qkv projection, so the block keeps its fused
        attention. The softmax is over all tokens, so rows sum to at most 1. Dropout of attention is
        not applied. Patches come row by row in the grid ``layout.grid_of(N, x.shape[-2:])``.

        Args:
            block: one that :meth:`keep_attention` was called with.

        Raises:
            ValueError: it was not called with this block, or the model has not run since.
        """
        return self._attention.of(block)

    def watch_shares(self, shares: Tensor, what: str) -> None:
        """Look at shares that a mixer has measured: they must be finite and in [0, 1].

        On an accelerator nothing waits: :meth:`check` of the next step raises.

        Args:
            shares: of any shape.
            what: the step, for the message.

        Raises:
            ValueError: they are on the CPU, and one is not finite or not in [0, 1].
        """
        self._watch.see_shares(shares, what)

    def check(self, what: str) -> None:
        """Raise ValueError if this step's embeddings hold a NaN, or its shares are none.

        On the CPU at once. On an accelerator at the next check, because to read the answer is to
        wait for it.

        Args:
            what: the step, for the message.
        """
        self._watch.check(what)

    def _named(self, name: str | None, what: str) -> str:
        if name is None:
            raise ValueError(
                f"The {what} of {type(self.model).__name__} is not known. Name a module: "
                f"mixplug.Stages(model, features=NAME, classifier=NAME)."
            )
        return name

    def _forward(
        self,
        call: Callable[[Tensor], object],
        x: Tensor,
        features: Edit | None = None,
        prefix: Edit | None = None,
        embedding: Edit | None = None,
        layers: Mapping[str, Edit] | None = None,
        dense: Edit | None = None,
        at: str | None = None,
    ) -> Forward:
        self._place_used(x, features is not None and at is None, dense is not None, layers or at)
        edits: dict[str, list[Step]] = {name: [edit] for name, edit in (layers or {}).items()}
        for name, step in self._attention.steps():
            edits.setdefault(name, []).append(step)
        if features is not None:
            at = self._named(at or self.features, "map A")
            edits.setdefault(at, []).append(self._passes.on_map(at, features, prefix))
        split = None if dense is None else self._named(self.last, "last map")
        if split is not None and dense is not None:
            edits.setdefault(split, []).append(self._passes.on_positions(split, dense))
        return self._passes.edited(call, x, edits, embedding, split)
