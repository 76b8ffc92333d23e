"""Where in a model a mix holds: invariants of a place, and the search for a place that has them.

Labels are mixed on trust: nothing in a loss shows that features were mixed elsewhere or not at all.
So each place is checked once, before the first batch is mixed, on random images of its shape.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.layouts import Layout
from mixplug.stages.as_trained import AsTrained
from mixplug.stages.forward import Forward
from mixplug.stages.isolation import undisturbed
from mixplug.stages.passes import Passes
from mixplug.stages.trace import Record, Recorder, leaf, nodes_of, reaches

BATCH = 3
# Alignment compares all pairs of positions.
MOST_POSITIONS = 1024
_NEXT = 6  # modules to look at for a better one
_ATTENTION = ("Bmm", "ScaledDotProduct")  # beginnings of names of autograd's nodes
_LAYERS = (nn.Conv2d, nn.Linear)

WHOLE, USEFUL, DENSE, UNREAD = "whole", "useful", "dense", "unread"
EMBEDDING = "e"
_LEVELS = {"A": "a feature map", "last": "every position of the last map"}
_FAILED = {
    WHOLE: "a path through the model bypasses it, so an image would be mixed in part only while "
    "its target is mixed wholly",
    UNREAD: "the output cannot be read as a map of the whole image",
    USEFUL: "its positions are only averaged afterwards, so aligning them changes nothing",
    DENSE: "layers behind it look at neighboring positions, so a position alone gives other "
    "logits, or most of the network is behind it",
}


@dataclass(frozen=True)
class Need:
    """A place at which a mixer mixes, and what has to hold there.

    Attributes:
        level: 'A' (the map to be mixed), 'last' (the last map before pooling), 'e' (the
            classifier's input), or a module's name.
        checks: of 'whole', 'useful' and 'dense':

            - whole: replacing the output by that of the other images gives their embeddings;
            - useful: shuffling the positions of one operand of a mix changes the embeddings;
            - dense: a constant map gives the same embedding at each position alone.
    """

    level: str
    checks: tuple[str, ...]


class Inspection:
    """Looks at the places of one model with random images.

    Args:
        passes: runs the model.
        x: a batch (B, ...), of which shape, dtype and device are used.
    """

    def __init__(self, passes: Passes, x: Tensor) -> None:
        self._passes = passes
        like = next(passes.model.parameters(), x)
        dtype = like.dtype if x.is_floating_point() else x.dtype
        self._x = leaf(_images(x.shape[1:]).to(x.device, dtype))
        self._trained = AsTrained(passes.model)
        with undisturbed(passes.model, x.device), torch.no_grad(), self._trained.learning():
            self._pass({})
        with self._quiet(), torch.enable_grad(), Recorder(passes.model) as seen:
            forward = self._pass({})
        self.records = seen.records
        self._e, self._logits = forward.embedding, forward.logits
        self._connected = reaches(self._e, self._x)

    @property
    def tells(self) -> bool:
        """Whether the embeddings of the images are finite and differ, so that checks can tell."""
        e = self._e.detach().double()
        return bool(e.isfinite().all()) and bool((e - e.mean(0)).abs().max() > 0)

    def failed(self, name: str, checks: Sequence[str]) -> str | None:
        """The first of the checks that fails at a module's output, or None."""
        ways: Mapping[str, Callable[[str], bool]] = {
            WHOLE: self.is_whole, USEFUL: self.is_useful,
            DENSE: lambda name: self.is_late(name) and self.is_dense(name),
        }  # fmt: skip
        return next((check for check in checks if not ways[check](name)), None)

    def is_misread(self, name: str) -> bool:
        """Whether the layout that was given for the output contradicts its shape."""
        record = self.records.get(name)
        return record is not None and self._passes.misreads(name, record.shape, self._size)

    def is_whole(self, name: str) -> bool:
        """Whether all that an image gives the embedding passes through this module's output.

        Where autograd can tell, no other path may lead there. And the outputs of the other images
        have to give their embeddings: a model may go on with another part of an output than the
        one that is edited.
        """
        record = self.records.get(name)
        edge = None if record is None or record.calls > 1 else record.edge
        if edge is not None and self._connected and reaches(self._e, self._x, {edge}):
            return False
        got = self._run({name: _roll})
        return not _differ(got, self._plain().roll(1, 0))

    def embedding_is_whole(self) -> bool:
        """Whether all that an image gives the logits passes through the classifier's input."""
        edges = [self.records[name].edge for name in self._passes.heads]
        heads = [edge for edge in edges if edge is not None]
        return not self._connected or not reaches(self._logits, self._x, heads)

    def is_useful(self, name: str) -> bool:
        """Whether it matters which positions of two maps are mixed."""
        return _differ(self._mixed(name, shuffle=False), self._mixed(name, shuffle=True))

    def is_single(self, name: str) -> bool:
        """Whether the map has only one position."""
        record = self.records.get(name)
        return record is not None and self._positions(record) == 1

    def is_ordered(self, name: str) -> bool:
        """Whether the order of a map's positions matters to what follows."""
        return _differ(self._run({name: self._passes.on_map(name, _shuffled)}), self._plain())

    def is_compared(self, name: str) -> bool:
        """Whether attention follows, in which positions are compared with each other."""
        record = self.records.get(name)
        cut = [record.edge] if record is not None and record.edge is not None else []
        return any(node.name().startswith(_ATTENTION) for node in nodes_of(self._e, cut))

    def is_late(self, name: str) -> bool:
        """Whether at most half of the layers follow.

        If every position is an example of its own, all that follows is run once for each. Early
        maps have many positions, and a network that makes nothing of a single one.
        """
        layers = [self.records[layer].order for layer in self._layers() if layer in self.records]
        record = self.records.get(name)
        return record is None or 2 * sum(order > record.order for order in layers) <= len(layers)

    def is_dense(self, name: str) -> bool:
        """Whether everything behind acts at each position alone."""

        def constant(a: Tensor) -> Tensor:
            return a.mean((2, 3), keepdim=True).expand_as(a).contiguous()

        def tokens(prefix: Tensor) -> Tensor:
            return maps[0][:, :, 0, 0][:, None].expand_as(prefix)

        maps: list[Tensor] = []

        def keep(a: Tensor) -> Tensor:
            maps[:] = [constant(a)]
            return maps[0]

        # The prefix is edited first, so a pass before has to find the map.
        self._run({name: self._passes.on_map(name, keep)})
        whole = self._run({name: self._passes.on_map(name, constant, tokens)})
        try:
            alone = self._run({name: self._passes.on_positions(name, constant)}, dense=name)
        except Exception:  # whatever the rest of a model raises for one position
            return False
        return not _differ(alone, whole[:, None].expand_as(alone))

    def candidates(self, first: str | None, inner: bool) -> Iterator[str]:
        """Modules that give a map of few positions: ``first``, then from the last one on.

        Args:
            first: name of the module to begin with.
            inner: whether modules come first whose map is about as small as the last, that have
                further layers behind them, and several layers inside.
        """
        if first is not None and self.has_map(first):
            yield first
        found = sorted(self.records.values(), key=lambda record: -record.order)
        rest = [r for r in found if r.name != first and self._may_hold(r)]
        if inner:
            layers = [self.records[name].order for name in self._layers() if name in self.records]
            end = max(layers, default=0)
            few = 4 * self._positions(rest[0]) if rest else 0
            rest.sort(
                key=lambda r: (
                    self._positions(r) > few,
                    r.order >= end,
                    _count(self._passes.taps.module(r.name)) < 2,
                )
            )
        yield from (record.name for record in rest)

    def _layers(self) -> Iterator[str]:
        """Names of the layers before the classifiers."""
        for name, module in self._passes.model.named_modules():
            head = any(name == h or name.startswith(f"{h}.") for h in self._passes.heads)
            if isinstance(module, _LAYERS) and not head:
                yield name

    def has_map(self, name: str) -> bool:
        """Whether this module's output can be read as a map."""
        record = self.records.get(name)
        return record is not None and self._layout(record) is not None

    def _layout(self, record: Record) -> Layout | None:
        return self._passes.layout_at(record.name, record.shape, self._size)

    def _may_hold(self, record: Record) -> bool:
        if record.calls > 1 or record.edge is None or record.shape[0] != BATCH:
            return False
        return 1 < self._positions(record) <= MOST_POSITIONS

    def _positions(self, record: Record) -> int:
        """N of its map, 0 if it has none."""
        layout = self._layout(record)
        if layout is None:
            return 0
        if len(record.shape) == 3:
            return record.shape[1] - layout.prefix
        rows = 1 if layout.channels_last else 2
        return record.shape[rows] * record.shape[rows + 1]

    @property
    def _size(self) -> tuple[int, int] | None:
        return (self._x.shape[-2], self._x.shape[-1]) if self._x.dim() == 4 else None

    def _pass(
        self, edits: Mapping[str, Callable[[object], object]], dense: str | None = None
    ) -> Forward:
        steps = {name: [edit] for name, edit in edits.items()}
        with torch.autocast(self._x.device.type, enabled=False):
            return self._passes.edited(self._passes.model, self._x, steps, dense=dense)

    def _run(
        self, edits: Mapping[str, Callable[[object], object]], dense: str | None = None
    ) -> Tensor:
        with self._quiet(), torch.no_grad():
            return self._pass(edits, dense).embedding

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        with undisturbed(self._passes.model, self._x.device), self._trained.entered():
            yield

    def _plain(self) -> Tensor:
        return self._e.detach()

    def _mixed(self, name: str, shuffle: bool) -> Tensor:
        def edit(a: Tensor) -> Tensor:
            other = a.roll(1, 0)
            if shuffle:
                other = _shuffled(other)
            return (a + other) / 2

        step = self._passes.on_map(name, edit, lambda tokens: (tokens + tokens.roll(1, 0)) / 2)
        return self._run({name: step})


class Places:
    """The places at which a model is mixed: what was found of them so far.

    Args:
        passes: runs the model.
        search: whether other places may be looked for.
        strict: whether a place at which a mix does not hold is an error, or a warning.
    """

    def __init__(self, passes: Passes, search: bool, strict: bool) -> None:
        self._passes, self._search, self._strict = passes, search, strict
        self._settled: set[Need] = set()
        self._refused: dict[Need, str] = {}  # with the message

    def settle(
        self, needs: Sequence[Need], x: Tensor, names: Mapping[str, str | None]
    ) -> dict[str, str | None]:
        """See :meth:`mixplug.Stages.place`.

        Args:
            needs: places, and what has to hold there.
            x: a batch.
            names: of the modules for 'A' and 'last'.

        Returns:
            The same names, or others for which the checks hold.
        """
        found, new = dict(names), [need for need in needs if need not in self._settled]
        for need in new:
            if need in self._refused:
                raise ValueError(self._refused[need])
        if not new:
            return found
        with torch.inference_mode(False):
            inspection = Inspection(self._passes, x)
        if not inspection.tells:  # the step itself says what is wrong
            return found
        for need in new:
            if need.level in found and self._search:
                found[need.level] = self._searched(inspection, need, found[need.level])
            else:
                self._check(inspection, need, found.get(need.level, need.level))
            self._settled.add(need)
        return found

    def open_to(self, need: Need) -> bool:
        """Whether a place may be searched, and no need that was settled includes this one."""
        return self._search and not any(
            need.level == other.level and set(need.checks) <= set(other.checks)
            for other in self._settled
        )

    def _searched(self, inspection: Inspection, need: Need, first: str | None) -> str | None:
        name = choose(inspection, first, need.checks, inner=need.level == "A")
        if name is None:
            why = (
                "" if first is None else f" At {first!r} {_FAILED[_why(inspection, first, need)]}."
            )
            self._complain(
                need,
                f"{self._model} has no module at which {_LEVELS[need.level]} can be mixed.{why} "
                f"Mixers of the input work.",
            )
        return name or first

    def _check(self, inspection: Inspection, need: Need, name: str | None) -> None:
        if name == EMBEDDING:
            if not inspection.embedding_is_whole():
                self._complain(
                    need,
                    f"The input of the classifier of {self._model} cannot be mixed: "
                    f"{_FAILED[WHOLE]}. Mixers of the input work.",
                )
            return
        failed = None if name is None else inspection.failed(name, need.checks)
        if failed is None and name is not None and inspection.is_misread(name):
            failed = UNREAD
        if failed == USEFUL and name is not None and inspection.is_single(name):
            warnings.warn(
                f"The map at {name!r} in {self._model} has one position for images of this size, "
                f"so there is nothing to align. Use larger images, or a module with a larger map.",
                stacklevel=2,
            )
        elif failed is not None:
            better = choose(inspection, None, need.checks, inner=DENSE not in need.checks)
            instead = f"Use {better!r}." if better else "No other module will do."
            self._complain(
                need, f"Do not mix at {name!r} in {self._model}: {_FAILED[failed]}. {instead}"
            )

    def _complain(self, need: Need, message: str) -> None:
        if self._strict:
            self._refused[need] = message
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)

    @property
    def _model(self) -> str:
        return type(self._passes.model).__name__


def _shuffled(a: Tensor) -> Tensor:
    """Positions of a map (B, C, H, W) in another order, the same for all images."""
    order = torch.randperm(math.prod(a.shape[2:]), generator=torch.Generator().manual_seed(0))
    return a.flatten(2)[..., order.to(a.device)].view_as(a)


def _why(inspection: Inspection, name: str, need: Need) -> str:
    return (inspection.failed(name, need.checks) if inspection.has_map(name) else None) or UNREAD


def choose(
    inspection: Inspection, first: str | None, checks: Sequence[str], inner: bool
) -> str | None:
    """The first module at which the checks hold, or None.

    Where alignment has to be useful, convolutions or attention should follow. A layer that acts at
    each position alone makes alignment matter by its nonlinearity only, which is little. So if no
    other follows, one of the next modules is preferred behind which the order of positions matters.

    Args:
        inspection: of the model.
        first: the module to begin with.
        checks: see :class:`Need`.
        inner: see :meth:`Inspection.candidates`.
    """
    found = inspection.candidates(first, inner)
    best = next((name for name in found if inspection.failed(name, checks) is None), None)
    if best is None or USEFUL not in checks:
        return best
    if inspection.is_ordered(best) or inspection.is_compared(best):
        return best
    for name in itertools.islice(inspection.candidates(None, inner), _NEXT):
        if inspection.is_ordered(name) and inspection.failed(name, checks) is None:
            return name
    return best


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether two results differ by more than rounding, relative to how much images differ."""
    rounding = 4 * torch.finfo(a.dtype).eps
    a, b = a.double(), b.double()
    spread = (a - a.mean(0)).abs().max()
    return bool((a - b).abs().max() > 1e-3 * spread + rounding * a.abs().max())


def _images(shape: Sequence[int]) -> Tensor:
    """Random inputs. Images have coarse patterns too, which a mean over positions does not hide."""
    source = torch.Generator().manual_seed(0)
    fine = torch.randn(BATCH, *shape, generator=source)
    if len(shape) != 3:
        return fine
    coarse = torch.randn(BATCH, shape[0], 3, 3, generator=source)
    return (fine + 2 * F.interpolate(coarse, tuple(shape[1:]), mode="bilinear")) / 2


def _roll(output: object) -> object:
    if isinstance(output, Tensor):
        return output.roll(1, 0)
    if isinstance(output, (tuple, list)):
        return type(output)([*output[:-1], _roll(output[-1])])
    return output


def _count(module: nn.Module) -> int:
    return sum(isinstance(m, _LAYERS) for m in module.modules())
