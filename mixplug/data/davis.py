"""DAVIS-2017 as it is unpacked, and label maps in its way: PNGs with a palette.

Nothing is downloaded: it is on davischallenge.org as DAVIS-2017-trainval-480p.zip.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixplug.data.image_views import as_tensor
from mixplug.optional import optional

_IMAGES, _LABELS = Path("JPEGImages/480p"), Path("Annotations/480p")
LAYOUT = (
    "DAVIS-2017 needs ImageSets/2017/<split>.txt, JPEGImages/480p/<video>/*.jpg and "
    "Annotations/480p/<video>/*.png, as in DAVIS-2017-trainval-480p.zip."
)
_WHY = "Reading DAVIS"


@dataclass(frozen=True)
class Video:
    """The files of a video, frame by frame.

    Attributes:
        name: of its folder.
        frames: images.
        annotations: label maps, one per frame, of the same names.
    """

    name: str
    frames: tuple[Path, ...]
    annotations: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.frames)


def davis_videos(root: str | Path, split: str = "val") -> list[Video]:
    """The videos of a split, in the order of its list.

    Args:
        root: the folder DAVIS of the official archive, or the one that it was unpacked in.
        split: a list of names in ImageSets/2017, without its suffix.

    Raises:
        ValueError: files are not where the official layout has them, or a frame has no annotation.
    """
    root = Path(root)
    home = (
        root if not (root / "DAVIS").is_dir() or (root / "ImageSets").is_dir() else root / "DAVIS"
    )
    listing = home / "ImageSets" / "2017" / f"{split}.txt"
    if not listing.is_file():
        there = ", ".join(sorted(path.stem for path in listing.parent.glob("*.txt")))
        beside = f" Splits that are there: {there}." if there else ""
        raise ValueError(f"There is no file {listing}. {LAYOUT}{beside}")
    names = listing.read_text(encoding="utf-8").split()
    if not names:
        raise ValueError(f"{listing} names no video. {LAYOUT}")
    return [_video(home, name) for name in names]


def read_frame(path: Path) -> Tensor:
    """(3, H, W) uint8, RGB.

    Raises:
        ValueError: no image.
    """
    try:
        return as_tensor(path)
    except OSError as error:  # of Pillow too, where it cannot make out an image
        raise ValueError(f"{path} cannot be read as an image: {error}.") from None


def read_labels(path: Path) -> Tensor:
    """A label map (H, W) uint8: which object every pixel is of, 0 is the background.

    Raises:
        ValueError: no image, or one in colors, which tell no numbers.
    """
    pillow = optional("PIL.Image", "timm", _WHY)
    try:
        with pillow.open(path) as image:
            if image.mode not in ("P", "L"):
                raise ValueError(
                    f"{path} is of mode {image.mode}: label maps need a palette (P) or gray (L)."
                )
            data, (width, height) = bytearray(image.tobytes()), image.size
    except OSError as error:
        raise ValueError(f"{path} cannot be read as an image: {error}.") from None
    return torch.frombuffer(data, dtype=torch.uint8).reshape(height, width)


def write_labels(path: Path, labels: Tensor) -> None:
    """A label map (H, W) in [0, 255], with DAVIS' palette; there is no half a file, ever."""
    pillow = optional("PIL.Image", "timm", "Writing label maps")
    image = pillow.fromarray(labels.to("cpu", torch.uint8).numpy())
    image.putpalette(palette())  # gray before, now of mode P
    part = path.with_name(f".{path.name}.part")
    image.save(part, format="PNG")
    os.replace(part, path)


def palette() -> list[int]:
    """R, G and B of labels 0 to 255, as of Pascal VOC, which DAVIS took over.

    The bits of a label go to red, green and blue in turns, from the lowest, each color filling
    from its highest bit.
    """
    return [
        sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for label in range(256)
        for channel in range(3)
    ]


def _video(home: Path, name: str) -> Video:
    frames = sorted((home / _IMAGES / name).glob("*.jpg"))
    if not frames:
        raise ValueError(f"There are no frames {home / _IMAGES / name}/*.jpg. {LAYOUT}")
    labels = tuple(home / _LABELS / name / f"{frame.stem}.png" for frame in frames)
    missing = [path for path in labels if not path.is_file()]
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(labels)} frames have no annotation, the first "
            f"missing is {missing[0]}. {LAYOUT}"
        )
    return Video(name, tuple(frames), labels)
