"""timm: find out the epoch and the normalization of images from a script's training loader."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from mixplug.hosts.retype import retype
from mixplug.stages.pixels import Pixels


class Passed:
    """A loader that records which of its passes the latest batch belongs to."""

    seen_by: TrainingLoader

    def __iter__(self) -> Iterator[Any]:
        this_pass = object()
        for batch in self.plain.__iter__(self):
            self.seen_by.current = this_pass
            yield batch


class TrainingLoader:
    """Facts about the loader that timm's ``create_loader`` made for training.

    Attributes:
        current: the pass that the last batch belongs to; None before the first batch.
        pixels: (mean, std) by which images are normalized; None before the loader is made.
    """

    def __init__(self) -> None:
        self.current: object | None = None
        self.pixels: Pixels | None = None

    def watched(self, create_loader: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``timm.data.create_loader``; it must be replaced before the script imports it.

        The loaders stay timm's own, with and without the prefetcher.
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

    An epoch is a pass over the training loader whose batches are trained on. Validation within an
    epoch does not change the count, whatever it does to the model's mode. Passes that only look at
    batches do not count either.

    Args:
        loader: the watched loader; None if there is none.
        first: the first epoch.
        fixed: whether a resumed run also begins with ``first``.
    """

    def __init__(self, loader: TrainingLoader | None, first: int = 0, fixed: bool = False) -> None:
        self.epoch: int | None = None
        self._loader = loader
        self._first: int | None = first
        self._fixed = fixed
        self._set_by_loop = False
        self._trained_on: object | None = None

    def set_epoch(self, epoch: int | None) -> None:
        """Set the epoch of the next batches. From now on epochs are not counted."""
        self.epoch, self._set_by_loop = epoch, True

    def resume(self, first: int | None) -> None:
        """The next training step begins this epoch, also if there were steps before.

        An epoch that the loop sets itself stays, and a ``fixed`` first epoch is begun again.

        Args:
            first: the epoch; None if it is not known.
        """
        if not self._fixed:
            self._first = first
        if not self._set_by_loop:
            self.epoch = self._trained_on = None

    def step(self) -> int | None:
        """Count a training step, and return its epoch, or None if it is not known."""
        current = None if self._loader is None else self._loader.current
        if self._set_by_loop or current is None or current is self._trained_on:
            return self.epoch
        self._trained_on = current
        self.epoch = self._first if self.epoch is None else self.epoch + 1
        return self.epoch
