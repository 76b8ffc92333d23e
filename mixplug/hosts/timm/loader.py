"""What the training loader of a script tells: where its epochs begin, and how it normalizes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from mixplug.hosts.retype import retype
from mixplug.stages.pixels import Pixels


class Passed:
    """A loader that notes which of its passes the latest batch is from."""

    seen_by: TrainingLoader

    def __iter__(self) -> Iterator[Any]:
        this_pass = object()
        for batch in self.plain.__iter__(self):
            self.seen_by.current = this_pass
            yield batch


class TrainingLoader:
    """What is known of the loader that timm's ``create_loader`` made for training.

    Attributes:
        current: the pass that the latest batch is from, None before the first batch.
        pixels: (mean, std) by which images are normalized, None as long as there is no loader.
    """

    def __init__(self) -> None:
        self.current: object | None = None
        self.pixels: Pixels | None = None

    def watched(self, create_loader: Callable[..., Any]) -> Callable[..., Any]:
        """``timm.data.create_loader``, watched: to stand in its place before a script imports it.

        The loader is the one that timm makes, prefetcher or not.
        """
        signature = inspect.signature(create_loader)

        @functools.wraps(create_loader)
        def create(*args: Any, **kwargs: Any) -> Any:
            loader = create_loader(*args, **kwargs)
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            if given.arguments["is_training"]:
                self.pixels = given.arguments["mean"], given.arguments["std"]
                retype(loader, Passed)
                loader.seen_by = self
            return loader

        return create


class EpochCount:
    """The epoch that a training step belongs to.

    An epoch is one pass over the training loader that is trained on. So validation within an epoch
    does not count, whatever it does to the model's mode, and neither does a pass that only looks at
    batches.

    Args:
        loader: of the script; None if there is none to watch.
        first: the first epoch.
        fixed: whether a resumed run begins at ``first``, too.
    """

    def __init__(self, loader: TrainingLoader | None, first: int = 0, fixed: bool = False) -> None:
        self.epoch: int | None = None
        self._loader = loader
        self._first: int | None = first
        self._fixed = fixed
        self._told = False
        self._trained_on: object | None = None

    def tell(self, epoch: int | None) -> None:
        """The loop says the epoch of the batches that come; from now on nothing is counted."""
        self.epoch, self._told = epoch, True

    def resume(self, first: int | None) -> None:
        """The run goes on at another first epoch; None if it is not known at which."""
        if not self._fixed:
            self._first = first

    def step(self) -> int | None:
        """The epoch of this training step, None if it is not known."""
        current = None if self._loader is None else self._loader.current
        if self._told or current is None or current is self._trained_on:
            return self.epoch
        self._trained_on = current
        self.epoch = self._first if self.epoch is None else self.epoch + 1
        return self.epoch
