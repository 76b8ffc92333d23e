"""Images without labels, such as the out-of-distribution sets for a classifier (3.4.4)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from mixplug.image_files import IMAGE_SUFFIXES, image_files, read_image
from mixplug.optional import optional

FITS = ("crop", "resize")


class Unlabeled(Dataset[Tensor]):
    """All images below a folder, sorted by path and read on demand.

    Subfolders make no difference, so every release of LSUN, iSUN and TinyImageNet for
    out-of-distribution detection works as unpacked: ``LSUN/test/``, ``Imagenet/test/``,
    ``iSUN/iSUN_patches/``, ``LSUN_resize/LSUN_resize/``. Hidden files and folders are ignored.

    Args:
        root: the folder.
        size: side to which :func:`fit` brings the images; None keeps them as they are.
        how: see :func:`fit`.
        orientation: what to do with EXIF orientations, see :func:`mixplug.image_files.open_rgb`:
            'ignore' as timm does, or 'apply' as mmcv does. Use what the test images get.

    Attributes:
        paths: paths of the images.

    Raises:
        ValueError: a missing folder, a folder without images, or an unknown ``how``.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        size: int | None = None,
        how: str = "crop",
        orientation: str = "ignore",
    ) -> None:
        self.root, self.size, self.how, self.orientation = Path(root), size, how, orientation
        _check_how(how)
        if not self.root.is_dir():
            raise ValueError(f"There is no folder {self.root}.")
        self.paths = sorted(image_files(self.root, nested=True))
        if not self.paths:
            raise ValueError(f"{self.root} has no images ({', '.join(IMAGE_SUFFIXES)}).")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """An image, (3, H, W) or (3, size, size), uint8, RGB.

        Raises:
            ValueError: a file that cannot be read, or an image that is too small for the crop.
        """
        path = self.paths[index]
        image = read_image(path, self.orientation)
        if self.size is None:
            return image
        try:
            return fit(image, self.size, self.how)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def fit(image: Tensor, size: int, how: str) -> Tensor:
    """Bring an image to a square of a given size.

    Args:
        image: (3, H, W), uint8, or float in [0, 1].
        size: side of the square in pixels.
        how: 'crop' takes the center crop without resampling ("crop" in Tables 3.4 and 5.7, whose
            images have 36 x 36 pixels). 'resize' first resizes the shorter side to ``size``,
            bilinear and antialiased; it changes nothing if the shorter side is ``size`` already.

    Returns:
        (3, size, size), of the same dtype.

    Raises:
        ValueError: an unknown ``how``, size < 1, another shape, or an image smaller than the crop.
    """
    _check_how(how)
    if image.dim() != 3 or size < 1:
        raise ValueError(
            f"fit needs an image (3, H, W) and size >= 1, got {tuple(image.shape)} and {size}."
        )
    if how == "resize":
        ops = optional("torchvision.transforms.v2.functional", "timm", "Resizing images")
        image = ops.resize(image, [size], antialias=True)
    height, width = image.shape[-2:]
    if min(height, width) < size:
        raise ValueError(
            f"an image of {height} x {width} is too small for a center crop of {size} x {size}. "
            f"Use 'resize' to enlarge it."
        )
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, top : top + size, left : left + size]


def shared_classes(names: Iterable[str], root: str | os.PathLike[str]) -> list[str]:
    """Names that are also names of folders with images below ``root``.

    A set that shares classes with the training set is not out of distribution. Names are compared
    in the form that :func:`plain` gives. A set without class folders has no names to compare, so
    the result is empty.

    Args:
        names: classes on which the network was trained.
        root: folder of an :class:`Unlabeled`.

    Returns:
        The shared names, in the order of ``names``.
    """
    home = Path(root)
    folders = {
        folder
        for path in image_files(home, nested=True)
        for folder in path.relative_to(home).parts[:-1]
    }
    found = {plain(folder) for folder in folders}
    return [name for name in names if plain(name) in found]


def plain(name: str) -> str:
    """Letters and digits of a name in lower case: 'Alarm_Clock' and 'alarm clock' become equal."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _check_how(how: str) -> None:
    if how not in FITS:
        raise ValueError(f"how must be one of {FITS}, got {how!r}.")
