"""Whom a card is about, and on which images: classifiers of pixels, and streams of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from mixplug.stages import Forward, Stages


@dataclass(frozen=True)
class Subject:
    """A classifier of images in [0, 1], in evaluation mode; whatever host it comes from.

    Attributes:
        name: of the checkpoint, as columns are headed.
        stages: of the network.
        normalize: pixels (B, C, H, W) in [0, 1], RGB, to what the network takes; differentiable.
        fingerprint: of weights and architecture, by which results are cached.
        facts: where the weights come from, such as ``checkpoint``, ``epoch`` and ``seed``.
        classes: names of its classes in their order, where the checkpoint says so.
    """

    name: str
    stages: Stages
    normalize: Callable[[Tensor], Tensor]
    fingerprint: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] = ()

    @property
    def network(self) -> nn.Module:
        """All of it."""
        return self.stages.model

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.network.parameters()).device

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(p.numel() for p in self.network.parameters())

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits (B, K) of pixels (B, C, H, W) in [0, 1]."""
        return self.outputs(pixels).logits

    def outputs(self, pixels: Tensor) -> Forward:
        """Logits (B, K) and embeddings (B, D) of pixels (B, C, H, W) in [0, 1]."""
        return self.stages(self.normalize(pixels))

    @torch.no_grad()
    def maps(self, pixels: Tensor) -> Tensor:
        """Last maps (B, D, h, w) before pooling."""
        return self.stages.with_map(self.normalize(pixels), self.stages.last)[1]

    def pixels(self, images: Tensor) -> Tensor:
        """Images of a stream, uint8 or in [0, 1], as float32 in [0, 1] on its device."""
        images = images.to(self.device, non_blocking=True)
        return images.float() / 255 if images.dtype == torch.uint8 else images.float()


@dataclass(frozen=True)
class Stream:
    """Images that are read as they are wanted, always in the same order.

    Attributes:
        name: as rows are headed.
        dataset: of (image (C, H, W) uint8 or in [0, 1], label); all images of one size.
        fingerprint: of what is in it, by which results are cached.
    """

    name: str
    dataset: Dataset[tuple[Tensor, int]]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def batches(self, size: int, workers: int = 0, start: int = 0) -> Iterator[Any]:
        """(images (B, C, H, W), labels (B,)) from image ``start`` on.

        Raises:
            ValueError: images of different sizes.
        """
        rest: Any = self.dataset if not start else Subset(self.dataset, range(start, len(self)))
        try:
            yield from DataLoader(rest, size, num_workers=workers)
        except RuntimeError as error:
            if "stack expects each tensor to be equal size" not in str(error):
                raise
            raise ValueError(
                f"The images of {self.name} are of different sizes. A card needs a pipeline for "
                f"testing that ends in one size, such as ResizeEdge and CenterCrop."
            ) from error


@dataclass(frozen=True)
class Data:
    """What a card measures on.

    Attributes:
        test: images of the classes that were trained on.
        classes: their names.
        bank: training images, to which k-NN compares; None leaves that score out.
        outside: out-of-distribution images by name.
        warnings: what a reader should know, such as a class that is also in a set outside.

    Raises:
        ValueError: two streams of one name.
    """

    test: Stream
    classes: Sequence[str]
    bank: Stream | None = None
    outside: Sequence[Stream] = ()
    warnings: Sequence[str] = ()

    def __post_init__(self) -> None:
        names = [one.name for one in self.streams]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"Several sets of images are called {', '.join(twice)}: give them a name each "
                f"(card.ood has the key name)."
            )

    @property
    def streams(self) -> list[Stream]:
        """All of them, test images first."""
        return [self.test, *([] if self.bank is None else [self.bank]), *self.outside]
