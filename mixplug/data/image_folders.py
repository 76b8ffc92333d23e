"""Labeled images in the layout of ImageNet: train/CLASS/*.JPEG and val/CLASS/*.JPEG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixplug import sampling
from mixplug.image_files import IMAGE_SUFFIXES, image_files, read_image, subfolders
from mixplug.optional import optional
from mixplug.renamed import old_names

RESIZE = 256 / 224  # ratio of the resized shorter side to the side of the center crop
_LAYOUT = (
    "It needs train/CLASS/ and val/CLASS/ with images, and the same classes in both. ImageNet's "
    "archive of validation images has no class folders: sort the images into class folders first."
)
_WHY = "Labeled images"


@dataclass(frozen=True)
class Labeled:
    """Images of one split, sorted by class and name.

    Attributes:
        paths: paths of the images.
        labels: class numbers, (len(paths),) int64.
        classes: class names, sorted; a class number is the index of its name.
    """

    paths: Sequence[str]
    labels: Tensor
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)


def image_folders(root: str | Path) -> tuple[Labeled, Labeled]:
    """The splits train and val under ``root``.

    Raises:
        ValueError: another layout: a missing folder, a class without images, or a class that is in
            only one split.
    """
    splits = []
    for name in ("train", "val"):
        try:
            splits.append(labeled(Path(root) / name))
        except ValueError as error:
            raise ValueError(
                f"{root} does not have the layout of ImageNet: {error} {_LAYOUT}"
            ) from None
    train, val = splits
    if train.classes != val.classes:
        unpaired = sorted(set(train.classes) ^ set(val.classes))
        raise ValueError(
            f"{root}: train has {len(train.classes):,} classes and val {len(val.classes):,}; "
            f"{len(unpaired):,} are in only one of them, such as {unpaired[0]}. {_LAYOUT}"
        )
    return train, val


def labeled(folder: str | Path) -> Labeled:
    """The images in ``folder``/CLASS/, subfolders included, hidden files and folders not.

    Raises:
        ValueError: a missing folder, a folder without class folders, or a class without images.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"there is no {folder}.")
    found = {inner.name: image_files(inner, nested=True) for inner in subfolders(folder)}
    if not found:
        raise ValueError(f"couldn't find any class folder in {folder}.")
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise ValueError(
            f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}) in {len(empty):,} of its "
            f"{len(found):,} class folders, such as {empty[0]}."
        )
    paths = [str(file) for files in found.values() for file in files]
    labels = [number for number, files in enumerate(found.values()) for _ in files]
    return Labeled(paths, torch.tensor(labels), list(found))


class Crops(Dataset[tuple[Tensor, int]]):
    """Crops (3, size, size) uint8 of the images of a split, and their labels.

    The crop of image i depends on (seed, epoch, i) alone, in whatever process it is drawn. Global
    random generators are not changed. As in timm and torchvision, EXIF orientations are ignored.

    Args:
        images: images of the split.
        size: side of the crops in pixels.
        augment: True takes a random resized crop, flipped with probability 1/2, as DINO does to
            train its linear classifier. False resizes the shorter side to size / crop, rounded
            down as in timm, and takes the center crop.
        seed: seed of all random draws.
        crop: share of the shorter side that the center crop keeps; None is 224 / 256, rounded to
            the nearest number of pixels.
        interpolation: of the resizing before the center crop.

    Attributes:
        epoch: current epoch; set it before you iterate over a loader.
    """

    def __init__(
        self,
        images: Labeled,
        size: int | tuple[int, int],
        augment: bool = False,
        seed: int = 0,
        crop: float | None = None,
        interpolation: str = "bicubic",
    ) -> None:
        transforms = optional("torchvision.transforms.v2", "timm", _WHY)
        sides = (size, size) if isinstance(size, int) else tuple(size)
        resized = [round(s * RESIZE) if crop is None else math.floor(s / crop) for s in sides]
        self.images, self.seed, self.epoch, self.augment = images, seed, 0, augment
        steps: list[Any] = (
            [transforms.RandomResizedCrop(sides, antialias=True), transforms.RandomHorizontalFlip()]
            if augment
            else [
                transforms.Resize(
                    resized[0] if sides[0] == sides[1] else resized,
                    transforms.InterpolationMode(interpolation),
                    antialias=True,
                ),
                transforms.CenterCrop(sides),
            ]
        )
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The crop of an image, and its label.

        Raises:
            ValueError: the file cannot be read.
        """
        image = read_image(self.images.paths[index])
        source = sampling.generators(self.seed, self.epoch, index).local
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(sampling.key(source))
            return self.transform(image), int(self.images.labels[index])


def loader(
    crops: Crops, batch_size: int, workers: int, order: Sequence[int] | None = None
) -> DataLoader[Any]:
    """Batches of images (B, 3, size, size) and labels (B,); the last batch may be smaller."""
    return DataLoader(
        crops, batch_size, num_workers=workers, sampler=order, pin_memory=torch.cuda.is_available()
    )


__getattr__ = old_names(__name__)
