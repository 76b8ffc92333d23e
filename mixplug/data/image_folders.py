"""Labeled images as ImageNet has them: train/CLASS/*.JPEG and val/CLASS/*.JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixplug import sampling
from mixplug.data.image_views import as_tensor
from mixplug.optional import optional
from mixplug.video.fingerprint import IMAGE_SUFFIXES

RESIZE = 256 / 224  # shorter side to the side of the center crop
_LAYOUT = (
    "It needs train/CLASS/ and val/CLASS/ with images, and the same classes in both. The archive "
    "of ImageNet's validation images has no folders of classes: sort them into such first."
)
_WHY = "Labeled images"


@dataclass(frozen=True)
class Labeled:
    """Images of one split, in the order of their classes and names.

    Attributes:
        paths: of the images.
        labels: numbers of their classes, (len(paths),) int64.
        classes: names, sorted; the number of a class is its place.
    """

    paths: Sequence[str]
    labels: Tensor
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)


def image_folders(root: str | Path) -> tuple[Labeled, Labeled]:
    """The splits train and val under ``root``.

    Raises:
        ValueError: another layout: a folder is missing, a class is without images or in one split
            only.
        ImportError: torchvision is not installed.
    """
    splits = []
    for name in ("train", "val"):
        try:
            splits.append(labeled(Path(root) / name))
        except ValueError as error:
            raise ValueError(f"{root} is no ImageNet-style folder: {error} {_LAYOUT}") from None
    train, val = splits
    if train.classes != val.classes:
        alone = sorted(set(train.classes) ^ set(val.classes))
        raise ValueError(
            f"{root}: train has {len(train.classes):,} classes and val {len(val.classes):,}; "
            f"{len(alone):,} are in one of them only, such as {alone[0]}. {_LAYOUT}"
        )
    return train, val


def labeled(folder: str | Path) -> Labeled:
    """The images below ``folder``/CLASS/.

    Raises:
        ValueError: no such folder, no folder in it, or one without images.
        ImportError: torchvision is not installed.
    """
    folders = optional("torchvision.datasets.folder", "timm", _WHY)
    try:
        classes, numbers = folders.find_classes(folder)
        rows = folders.make_dataset(str(folder), numbers, IMAGE_SUFFIXES)
    except OSError as error:  # of a folder, or of a class without an image
        why = str(error).rstrip(". ") if Path(folder).is_dir() else f"there is no {folder}"
        raise ValueError(f"{why}.") from None
    return Labeled([path for path, _ in rows], torch.tensor([n for _, n in rows]), classes)


class Crops(Dataset[tuple[Tensor, int]]):
    """Images (3, size, size) uint8 of a split, and their labels.

    The crop of image i depends on (seed, epoch, i) alone, whatever process draws it, and moves no
    global generator.

    Args:
        images: the split.
        size: side in pixels.
        augment: a random resized crop, flipped with probability 1/2, as DINO trains its linear
            classifier; without, the shorter side is resized to size 256 / 224 and the center taken.
        seed: of all draws.

    Attributes:
        epoch: set it before a loader is iterated.
    """

    def __init__(self, images: Labeled, size: int, augment: bool = False, seed: int = 0) -> None:
        transforms = optional("torchvision.transforms.v2", "timm", _WHY)
        self.images, self.seed, self.epoch, self.augment = images, seed, 0, augment
        steps: list[Any] = (
            [transforms.RandomResizedCrop(size, antialias=True), transforms.RandomHorizontalFlip()]
            if augment
            else [
                transforms.Resize(
                    round(size * RESIZE), transforms.InterpolationMode.BICUBIC, antialias=True
                ),
                transforms.CenterCrop(size),
            ]
        )
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The crop of an image, and its label.

        Raises:
            ValueError: a file that cannot be read.
        """
        path = Path(self.images.paths[index])
        try:
            image = as_tensor(path)
        except OSError as error:  # PIL's as well
            raise ValueError(f"{path} cannot be read: {error}") from error
        source = sampling.generators(self.seed, self.epoch, index).local
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(sampling.key(source))
            return self.transform(image), int(self.images.labels[index])


def loader(
    crops: Crops, batch_size: int, workers: int, order: Sequence[int] | None = None
) -> DataLoader[Any]:
    """Batches (B, 3, size, size) and (B,), the last one smaller, in the given order."""
    return DataLoader(
        crops, batch_size, num_workers=workers, sampler=order, pin_memory=torch.cuda.is_available()
    )
