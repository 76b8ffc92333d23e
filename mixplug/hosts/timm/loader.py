"""timm: a script's training loader: its epochs, normalization of images, balanced batches."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import BatchSampler

from mixplug import distributed as ranks
from mixplug.data.samplers import MPerClassSampler
from mixplug.hosts.retype import retype
from mixplug.stages.pixels import Pixels


class Passed:
    """A loader that records which of its passes the latest batch belongs to."""

    seen_by: TrainingLoader

    def __iter__(self) -> Iterator[Any]:
        this_pass = object()
        self.seen_by.begin_pass()
        for batch in self.plain.__iter__(self):
            self.seen_by.current = this_pass
            yield batch


class TrainingLoader:
    """Facts about the loader that timm's ``create_loader`` made for training.

    Args:
        samples_per_class: how many examples of each of its classes a batch has, see
            :class:`mixplug.data.samplers.MPerClassSampler`; None keeps timm's random order.

    Attributes:
        current: the pass that the last batch belongs to; None before the first batch.
        pixels: (mean, std) by which images are normalized; None before the loader is made.
        first: the first epoch, on which the draws of classes depend.
    """

    def __init__(self, samples_per_class: int | None = None) -> None:
        self.current: object | None = None
        self.pixels: Pixels | None = None
        self.first = 0
        self._samples_per_class = samples_per_class
        self._sampler: MPerClassSampler | None = None
        self._passes = 0

    def begin_pass(self) -> None:
        """Draw the classes of the next pass anew."""
        if self._sampler is not None:
            self._sampler.set_epoch(self.first + self._passes)
        self._passes += 1

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
                if self._samples_per_class is not None:
                    batch = given.arguments["batch_size"]
                    self._sampler = balance(loader, self._samples_per_class, batch)
                retype(loader, Passed)
                loader.seen_by = self
            return loader

        return create


def balance(loader: Any, samples_per_class: int, batch_size: int) -> MPerClassSampler:
    """Make a loader of timm take ``samples_per_class`` examples of each class that it draws.

    Raises:
        ValueError: the loader has batches of another kind, or the labels of its images are not
            known, or the errors of MPerClassSampler.
    """
    inner = getattr(loader, "loader", loader)  # within the prefetcher
    if type(getattr(inner, "batch_sampler", None)) is not BatchSampler:
        raise ValueError(
            f"--samples-per-class needs a plain loader over images, got {type(inner).__name__} "
            f"with {type(getattr(inner, 'batch_sampler', None)).__name__}. Leave out "
            f"--use-multi-epochs-loader and iterable data sets."
        )
    labels = labels_of(inner.dataset)
    sampler = MPerClassSampler(
        labels, samples_per_class, batch_size, ranks.shared_seed(), ranks.rank(), ranks.world()
    )
    inner.batch_sampler.sampler = sampler
    return sampler


def labels_of(dataset: Any) -> list[int]:
    """The label of each image, as timm's folders and torchvision's data sets hold them.

    Raises:
        ValueError: they are held in another way.
    """
    for holder in (dataset, getattr(dataset, "reader", None)):
        for name in ("targets", "labels", "samples"):
            found = getattr(holder, name, None)
            if found is not None and len(found) == len(dataset):
                return [int(each[1] if name == "samples" else each) for each in found]
    raise ValueError(
        f"--samples-per-class needs the labels of all images before training, but "
        f"{type(dataset).__name__} has neither targets nor labels nor samples. Use a folder of "
        f"images, or a data set of torchvision."
    )


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
