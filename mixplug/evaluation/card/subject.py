"""The classifiers and image sets that a card evaluates."""

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
    """A classifier in evaluation mode that takes images in [0, 1], from any framework.

    Attributes:
        name: of the checkpoint, used as column name.
        stages: the network.
        normalize: converts pixels (B, C, H, W) in [0, 1], RGB, to the input of the network;
            differentiable.
        fingerprint: hash of weights and architecture; results are cached under it.
        facts: origin of the weights, such as ``checkpoint``, ``epoch`` and ``seed``.
        classes: names of the classes in order, if the checkpoint records them.
    """

    name: str
    stages: Stages
    normalize: Callable[[Tensor], Tensor]
    fingerprint: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] = ()

    @property
    def network(self) -> nn.Module:
        """The whole network."""
        return self.stages.model

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.network.parameters()).device

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.network.parameters())

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits (B, K) of pixels (B, C, H, W) in [0, 1]."""
        return self.outputs(pixels).logits

    def outputs(self, pixels: Tensor) -> Forward:
        """Logits (B, K) and embeddings (B, D) of pixels (B, C, H, W) in [0, 1]."""
        return self.stages(self.normalize(pixels))

    @torch.no_grad()
    def maps(self, pixels: Tensor) -> Tensor:
        """Last feature maps (B, D, h, w) before pooling."""
        return self.stages.with_map(self.normalize(pixels), self.stages.last)[1]

    def pixels(self, images: Tensor) -> Tensor:
        """Images of a stream, uint8 or in [0, 1], as float32 in [0, 1] on the network's device."""
        images = images.to(self.device, non_blocking=True)
        return images.float() / 255 if images.dtype == torch.uint8 else images.float()


@dataclass(frozen=True)
class Stream:
    """Images that are read on demand, always in the same order.

    Attributes:
        name: used as section name and in messages.
        dataset: of (image (C, H, W) uint8 or in [0, 1], label); all images have the same size.
        fingerprint: hash of the content; results are cached under it.
    """

    name: str
    dataset: Dataset[tuple[Tensor, int]]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def batches(self, size: int, workers: int = 0, start: int = 0) -> Iterator[Any]:
        """Batches (images (B, C, H, W), labels (B,)), beginning with image ``start``.

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
                f"The images of {self.name} are of different sizes. A card needs a test pipeline "
                f"that gives all images the same size, for example by ResizeEdge and CenterCrop."
            ) from error


@dataclass(frozen=True)
class Data:
    """The image sets that a card evaluates on.

    Attributes:
        test: test images of the classes of the training set.
        classes: names of the classes.
        bank: training images for the k-NN score; None omits that score.
        outside: out-of-distribution sets.
        warnings: remarks for the reader, such as a class that is also in an out-of-distribution
            set.

    Raises:
        ValueError: two streams have the same name.
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
                f"Several image sets are called {', '.join(twice)}: give each its own name (key "
                f"name of card.ood)."
            )

    @property
    def streams(self) -> list[Stream]:
        """All image sets, the test images first."""
        return [self.test, *([] if self.bank is None else [self.bank]), *self.outside]
