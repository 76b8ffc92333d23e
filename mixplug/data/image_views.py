"""Multi-crop views of images, as clips of one frame."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mixplug import sampling
from mixplug.data.clip_samplers import generators
from mixplug.data.multicrop import MultiCrop, multicrop_of
from mixplug.image_files import IMAGE_SUFFIXES, image_files, pixels_of, read_image, to_rgb


class Images(Protocol):
    """A data set of images: an item is an image, or a tuple whose first element is an image."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class ImageViews(Dataset[dict[str, Tensor]]):
    """Multi-crop views of images: for DINO, and for DoRA without tracking (6.5.4).

    Items and keys are those of :class:`mixplug.data.clips.VideoClips` with T = 1: the item with the
    key ``epoch * len(dataset) + index`` depends on (seed, epoch, index) alone, see
    :class:`mixplug.data.clip_samplers.ClipSampler`.

    Args:
        images: a folder of images, subfolders included; or a data set, labeled or not, of PIL
            images, uint8 arrays (H, W, 3) or uint8 tensors (3, H, W), RGB or gray.
        views: a :class:`mixplug.data.multicrop.MultiCrop`, or a dict of its keys.
        seed: seed of all random draws.

    Raises:
        KeyError: an unknown key of ``views``.
        ValueError: there are no images.
    """

    def __init__(
        self,
        images: str | os.PathLike[str] | Images,
        views: MultiCrop | Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.images: Images
        self.images = _paths(Path(images)) if isinstance(images, (str, os.PathLike)) else images
        self.views, self.seed = multicrop_of(views), seed
        if not len(self.images):
            raise ValueError("ImageViews needs at least one image, got 0.")

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """The items of the first epoch. Keys have no upper bound, so all epochs would never end."""
        return (self[key] for key in range(len(self)))

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        """The views of an image: ``large`` (2, 1, 3, H, W) and ``small`` (m, 1, 3, h, w), uint8.

        Raises:
            IndexError: a negative key.
            ValueError: the item is not an image.
        """
        if key < 0:
            raise IndexError(f"Keys are epoch * {len(self)} + index >= 0, got {key}.")
        epoch, index = divmod(int(key), len(self))
        item = self.images[index]
        image = item[0] if isinstance(item, (tuple, list)) else item
        key = sampling.key(generators(self.seed, epoch, index).local)
        return self.views(as_tensor(image)[None], key)


def as_tensor(image: Any) -> Tensor:
    """Convert a path, PIL image, array (H, W, 3) or tensor (3, H, W) to (3, H, W) uint8, RGB.

    EXIF orientations are ignored, as in timm.

    Raises:
        ValueError: anything else, or an image that :func:`mixplug.image_files.open_rgb` refuses.
    """
    if isinstance(image, os.PathLike):
        return read_image(image)
    if hasattr(image, "convert"):  # a PIL image
        try:
            return pixels_of(to_rgb(image))
        except ValueError as error:
            raise ValueError(f"A PIL image cannot be used: {error}.") from None
    tensor = torch.as_tensor(image) if hasattr(image, "shape") else torch.empty(0)
    if not isinstance(image, Tensor) and tensor.dim() == 3:
        tensor = tensor.permute(2, 0, 1)
    if tensor.dim() != 3 or tensor.shape[0] not in (1, 3) or tensor.dtype != torch.uint8:
        got = f"{tuple(image.shape)} of {image.dtype}" if tensor.numel() else type(image).__name__
        raise ValueError(
            f"An image must be a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W), "
            f"got {got}."
        )
    return tensor.expand(3, -1, -1)


def _paths(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        raise ValueError(f"There is no folder of images {folder}.")
    found = sorted(image_files(folder, nested=True))
    if not found:
        raise ValueError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}).")
    return found
