"""PASCAL VOC 2012 in its published layout: images with masks and boxes of all objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor

from mixplug.image_files import opened, read_image
from mixplug.optional import optional

IMAGES = {"train": 1464, "val": 1449, "trainval": 2913}  # number of images with masks
VOID = 255  # value in a mask for the borders of objects and for ambiguous pixels
_LAYOUT = (
    "Unpack VOCtrainval_11-May-2012.tar into root, so that there are "
    "VOCdevkit/VOC2012/JPEGImages/, Annotations/, SegmentationClass/ and "
    "ImageSets/Segmentation/val.txt."
)
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VOCImage:
    """One image with its annotations; files are read on demand.

    Attributes:
        name: name, such as '2007_000033'.
        image: its JPEG file.
        annotation: its XML file with boxes.
        mask: its PNG file with classes or objects.
    """

    name: str
    image: Path
    annotation: Path
    mask: Path

    def pixels(self) -> Tensor:
        """The image, (3, H, W) uint8, RGB.

        Raises:
            ValueError: a damaged file, or an EXIF orientation.
        """
        return read_image(self.image, orientation="refuse")

    def boxes(self) -> Tensor:
        """Boxes of all objects, difficult and truncated ones included, (n, 4) float64 in pixels.

        A box is (left, top, right, bottom), counted from 0; right and bottom are exclusive. In the
        file, pixels count from 1 and the last pixel is inclusive.

        Raises:
            ValueError: a file that is not an annotation, or that has no object.
        """
        try:
            objects = ElementTree.parse(self.annotation).getroot().findall("object")
            found = [_box(one) for one in objects]
        except (ElementTree.ParseError, ValueError) as error:
            raise ValueError(f"{self.annotation} is not a VOC annotation: {error}") from error
        if not found:
            raise ValueError(f"{self.annotation} has no object.")
        return torch.tensor(found, dtype=torch.float64)

    def objects(self) -> tuple[Tensor, Tensor]:
        """Object pixels (of any object) and void pixels: both (H, W) bool.

        Raises:
            ValueError: a damaged file, or a PNG without a number per pixel.
        """
        numpy = optional("numpy", "timm", "VOC 2012")
        with opened(self.mask) as file:
            mode, numbers = file.mode, torch.from_numpy(numpy.array(file))
        if mode not in ("P", "L"):
            raise ValueError(
                f"{self.mask} is not a VOC mask: it needs a number per pixel, got mode {mode}."
            )
        void = numbers == VOID
        return (numbers > 0) & ~void, void


def voc2012(root: str | Path, split: str = "val", check: bool = True) -> list[VOCImage]:
    """The images of VOC 2012 that have masks.

    Args:
        root: the folder VOC2012, or its parent, or the parent of VOCdevkit.
        split: 'train', 'val' or 'trainval', a list in ImageSets/Segmentation.
        check: whether the number of images must be the official one, such as 1449 for 'val'.

    Raises:
        ValueError: an unknown split, another layout, missing files, or another number of images.
    """
    if split not in IMAGES:
        raise ValueError(f"VOC 2012 has the splits {', '.join(IMAGES)}; got {split!r}.")
    listed = Path("ImageSets", "Segmentation", f"{split}.txt")
    home = _home(Path(root), listed)
    names = (home / listed).read_text("utf-8").split()
    if not names or (check and len(names) != IMAGES[split]):
        raise ValueError(
            f"{home}: {split}.txt lists {len(names):,} images, but the official split has "
            f"{IMAGES[split]:,}. {_LAYOUT} For a shorter list of your own, pass --subset "
            f"(check=False)."
        )
    classes = home / "SegmentationClass"
    masks = classes if classes.is_dir() else home / "SegmentationObject"
    found = [
        VOCImage(
            name,
            home / "JPEGImages" / f"{name}.jpg",
            home / "Annotations" / f"{name}.xml",
            masks / f"{name}.png",
        )
        for name in names
    ]
    files = [file for one in found for file in (one.image, one.annotation, one.mask)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"{home}: {len(missing):,} of {len(files):,} files listed in {split}.txt are missing. "
            f"The first is {missing[0].relative_to(home)}. {_LAYOUT}"
        )
    return found


def _home(root: Path, listed: Path) -> Path:
    """The folder VOC2012."""
    for inner in (".", "VOC2012", "VOCdevkit/VOC2012"):
        if (root / inner / listed).is_file():
            return root / inner
    raise ValueError(f"{root} is not VOC 2012: it has no {listed.as_posix()}. {_LAYOUT}")


def _box(one: ElementTree.Element) -> tuple[float, float, float, float]:
    """Box of an object; its parts have boxes of their own, which are ignored."""
    texts = [one.findtext(f"bndbox/{side}") for side in _SIDES]
    if None in texts:
        raise ValueError(f"an object has no {' '.join(_SIDES)}")
    left, top, right, bottom = (float(text) for text in texts if text is not None)
    if right < left or bottom < top:
        raise ValueError(f"an empty box, {left:g} {top:g} {right:g} {bottom:g}")
    return left - 1, top - 1, right, bottom
