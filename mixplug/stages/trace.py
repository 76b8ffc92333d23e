"""One recorded pass through a model: what each module gave, and which paths lead from x to e."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Edge = tuple[Any, int]  # a node of the autograd graph, and which of its outputs is meant


@dataclass(frozen=True)
class Record:
    """What a module gave in a pass.

    Attributes:
        name: of the module.
        shape: of its output; of the last level, if it is a tuple of levels.
        edge: this output in the graph of autograd; None if it is not there, or is also an input or
            another level, so that more hangs on it than passes here.
        order: how many outputs were recorded before.
        calls: how often the module was called.
    """

    name: str
    shape: tuple[int, ...]
    edge: Edge | None
    order: int
    calls: int = 1


class Recorder:
    """Records the outputs of all modules of a model while it is entered.

    It uses hooks of its own, so no tap needs to be prepared.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.records: dict[str, Record] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Recorder:
        """Register the hooks."""
        for name, module in self._model.named_modules():
            if name:
                self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        """Remove them."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Any:
        def record(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            level = output[-1] if isinstance(output, (tuple, list)) and output else output
            if isinstance(level, Tensor):
                levels = output[:-1] if isinstance(output, (tuple, list)) else ()
                calls = self.records[name].calls + 1 if name in self.records else 1
                beside = [edge_of(t) for t in (*args, *levels) if isinstance(t, Tensor)]
                edge = None if edge_of(level) in beside else edge_of(level)
                order = len(self.records) if calls == 1 else self.records[name].order
                self.records[name] = Record(name, tuple(level.shape), edge, order, calls)

        return record


def edge_of(t: Tensor) -> Edge | None:
    """The tensor in the graph of autograd."""
    return None if t.grad_fn is None else (t.grad_fn, t.output_nr)


def nodes_of(end: Tensor, without: Collection[Edge] = ()) -> Iterator[Any]:
    """Nodes of the graph of autograd on all paths back from ``end``, itself first.

    Args:
        end: a result.
        without: edges that no path may use.
    """
    start = edge_of(end)
    todo, seen = [] if start is None else [start], set[Any]()  # nodes: an id would be given again
    while todo:
        edge = todo.pop()
        if edge in without or edge[0] in seen:
            continue
        seen.add(edge[0])
        yield edge[0]
        todo.extend(after for after in edge[0].next_functions if after[0] is not None)


def reaches(end: Tensor, source: Tensor, without: Collection[Edge] = ()) -> bool:
    """Whether a path in the graph of autograd leads from ``end`` back to the leaf ``source``.

    Args:
        end: a result.
        source: a leaf that requires a gradient.
        without: edges that no path may use.
    """
    return any(getattr(node, "variable", None) is source for node in nodes_of(end, without))


def leaf(x: Tensor) -> Tensor:
    """A copy of x that requires a gradient."""
    return x.detach().clone().requires_grad_(torch.is_floating_point(x))
