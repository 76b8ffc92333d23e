"""DAVIS-2017 in its published layout, and label maps in its format: PNGs with a palette.

Nothing is downloaded. The archive DAVIS-2017-trainval-480p.zip is on davischallenge.org.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixplug.image_files import files_in, hidden, opened, read_image
from mixplug.optional import optional

_IMAGES, _LABELS = Path("JPEGImages/480p"), Path("Annotations/480p")
LAYOUT = (
    "DAVIS-2017 needs ImageSets/2017/<split>.txt, JPEGImages/480p/<video>/*.jpg and "
    "Annotations/480p/<video>/*.png, as in DAVIS-2017-trainval-480p.zip."
)


@dataclass(frozen=True)
class Video:
    """The files of a video, one of each kind per frame.

    Attributes:
        name: name of the video's folder.
        frames: images.
        annotations: label maps, one per frame, with the same names as the images.
    """

    name: str
    frames: tuple[Path, ...]
    annotations: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.frames)


def davis_videos(root: str | Path, split: str = "val") -> list[Video]:
    """The videos of a split, in the order of its list.

    Args:
        root: the folder DAVIS of the official archive, or its parent.
        split: name of a list in ImageSets/2017, without the suffix.

    Raises:
        ValueError: the files do not have the official layout, or a frame has no annotation.
    """
    root = Path(root)
    home = (
        root if not (root / "DAVIS").is_dir() or (root / "ImageSets").is_dir() else root / "DAVIS"
    )
    listing = home / "ImageSets" / "2017" / f"{split}.txt"
    if not listing.is_file():
        existing = ", ".join(
            sorted(path.stem for path in listing.parent.glob("*.txt") if not hidden(path.name))
        )
        hint = f" Existing splits: {existing}." if existing else ""
        raise ValueError(f"There is no file {listing}. {LAYOUT}{hint}")
    names = listing.read_text(encoding="utf-8").split()
    if not names:
        raise ValueError(f"{listing} lists no video. {LAYOUT}")
    return [_video(home, name) for name in names]


def read_frame(path: Path) -> Tensor:
    """Read an image as (3, H, W) uint8, RGB.

    Raises:
        ValueError: the file cannot be read as an image, or has an EXIF orientation.
    """
    return read_image(path, orientation="refuse")


def read_labels(path: Path) -> Tensor:
    """Read a label map (H, W) uint8: the number of the object at each pixel, 0 is the background.

    Raises:
        ValueError: the file cannot be read as an image, or has colors instead of numbers.
    """
    with opened(path) as image:
        mode, (width, height) = image.mode, image.size
        data = bytearray(image.tobytes())
    if mode not in ("P", "L"):
        raise ValueError(
            f"A label map needs a palette (mode P) or gray values (L); {path} has mode {mode}."
        )
    return torch.frombuffer(data, dtype=torch.uint8).reshape(height, width)


def write_labels(path: Path, labels: Tensor) -> None:
    """Write a label map (H, W) in [0, 255] with DAVIS' palette; no partial file is ever visible."""
    pillow = optional("PIL.Image", "timm", "Writing label maps")
    image = pillow.fromarray(labels.to("cpu", torch.uint8).numpy())
    image.putpalette(palette())  # changes the mode from gray to P
    part = path.with_name(f".{path.name}.part")
    image.save(part, format="PNG")
    os.replace(part, path)


def palette() -> list[int]:
    """R, G and B of labels 0 to 255: the palette of Pascal VOC, which DAVIS uses too.

    From the lowest bit on, the bits of a label go to red, green and blue in turn. Each color is
    filled from its highest bit down.
    """
    return [
        sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for label in range(256)
        for channel in range(3)
    ]


def _video(home: Path, name: str) -> Video:
    folder = home / _IMAGES / name
    frames = files_in(folder, (".jpg",)) if folder.is_dir() else []
    if not frames:
        raise ValueError(f"There are no files {home / _IMAGES / name}/*.jpg. {LAYOUT}")
    labels = tuple(home / _LABELS / name / f"{frame.stem}.png" for frame in frames)
    missing = [path for path in labels if not path.is_file()]
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(labels)} frames have no annotation. The first "
            f"missing file is {missing[0]}. {LAYOUT}"
        )
    return Video(name, tuple(frames), labels)
