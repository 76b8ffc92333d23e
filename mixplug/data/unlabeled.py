"""Images without labels: the sets that a classifier should not know (3.4.4)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from mixplug.data.image_views import as_tensor
from mixplug.optional import optional
from mixplug.video.fingerprint import IMAGE_SUFFIXES

FITS = ("crop", "resize")


class Unlabeled(Dataset[Tensor]):
    """Images below a folder, in the order of their paths; each is read when it is asked for.

    Folders in the folder make no difference, so all releases of LSUN, iSUN and TinyImageNet for
    out-of-distribution detection are read as they unpack: ``LSUN/test/``, ``Imagenet/test/``,
    ``iSUN/iSUN_patches/``, ``LSUN_resize/LSUN_resize/``. What begins with a dot is left out.

    Args:
        root: the folder.
        size: side to which images are brought by :func:`fit`; None leaves them as they are.
        how: see :func:`fit`.

    Attributes:
        paths: of the images.

    Raises:
        ValueError: no such folder, no image in it, or an unknown ``how``.
    """

    def __init__(
        self, root: str | os.PathLike[str], size: int | None = None, how: str = "crop"
    ) -> None:
        self.root, self.size, self.how = Path(root), size, how
        _known(how)
        if not self.root.is_dir():
            raise ValueError(f"There is no folder of images {self.root}.")
        self.paths = sorted(_images(self.root))
        if not self.paths:
            raise ValueError(f"{self.root} has no images ({', '.join(IMAGE_SUFFIXES)}).")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """An image, (3, H, W) or (3, size, size), uint8, RGB.

        Raises:
            ValueError: a file that cannot be read, or an image that does not fit.
        """
        path = self.paths[index]
        try:
            image = as_tensor(path)
        except OSError as error:  # PIL's as well
            raise ValueError(f"{path} cannot be read: {error}") from error
        if self.size is None:
            return image
        try:
            return fit(image, self.size, self.how)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def fit(image: Tensor, size: int, how: str) -> Tensor:
    """A square of an image.

    Args:
        image: (3, H, W), uint8, or float in [0, 1].
        size: its side in pixels.
        how: 'crop' takes the center, pixels untouched ("crop" in Tables 3.4 and 5.7; its images
            are of 36 x 36); 'resize' first brings the shorter side to ``size``, bilinear and
            antialiased, and changes nothing where it is ``size`` already.

    Returns:
        (3, size, size), of the same dtype.

    Raises:
        ValueError: another ``how``, size < 1, no such image, or one smaller than what is cropped.
    """
    _known(how)
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
            f"an image of {height} x {width} has no center of {size} x {size}; 'resize' makes it "
            f"larger."
        )
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, top : top + size, left : left + size]


def shared_classes(names: Iterable[str], root: str | os.PathLike[str]) -> list[str]:
    """Those of ``names`` that are also names of folders of images below ``root``.

    Such a set is not out of distribution. Names are compared as :func:`plain` writes them; a set
    in one folder has no names, and passes.

    Args:
        names: of the classes that the network was trained on.
        root: of an :class:`Unlabeled`.

    Returns:
        In the order of ``names``.
    """
    home = Path(root)
    folders = {folder for path in _images(home) for folder in path.relative_to(home).parts[:-1]}
    theirs = {plain(folder) for folder in folders}
    return [name for name in names if plain(name) in theirs]


def plain(name: str) -> str:
    """Letters and digits of a name in lower case: 'Alarm_Clock' and 'alarm clock' are the same."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _images(home: Path) -> Iterable[Path]:
    """All of them, without what is hidden."""
    for folder, inner, files in os.walk(home, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield Path(folder, name)


def _known(how: str) -> None:
    if how not in FITS:
        raise ValueError(f"Images are brought to a size by one of {FITS}, got {how!r}.")
