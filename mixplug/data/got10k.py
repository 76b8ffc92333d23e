"""GOT-10k in its published layout: folders of frames with a box per frame and a class [0].

::

    ROOT/train/list.txt                        names of sequences, one per line; also val, test
    ROOT/train/GOT-10k_Train_000001/00000001.jpg, 00000002.jpg, ...
                                    groundtruth.txt   a line x,y,w,h per frame; in test one line
                                    cover.label       0 to 8 per frame: how much is visible
                                    absence.label     0 or 1 per frame: 1 if the object is absent
                                    meta_info.ini     object_class, motion_class and more

The test split has no labels and no classes.

- [0]: GOT-10k: A Large High-Diversity Benchmark for Generic Object Tracking in the Wild, 2018,
  https://arxiv.org/abs/1810.11981
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mixplug.image_files import files_in, opened, read_image
from mixplug.renamed import renamed_attributes

SPLITS = ("train", "val", "test")
_MOST_COVER = 8


@renamed_attributes(labelled="labeled")
@dataclass(frozen=True)
class TrackingSequence:
    """One object in a video of T frames.

    Attributes:
        name: name of the sequence's folder.
        frames: image files in order of time.
        boxes: (T, 4) float64, left, top, width and height in pixels; for test only the first row.
        cover: (T,) int64, visible part of the object, from 0 to 8; empty for test.
        absent: (T,) bool, frames without the object; empty for test.
        object_class: class of the object, such as 'bear'; empty for test.
        motion_class: class of the motion, such as 'walking'; empty for test.
    """

    name: str
    frames: tuple[Path, ...]
    boxes: Tensor
    cover: Tensor
    absent: Tensor
    object_class: str = ""
    motion_class: str = ""

    @property
    def labeled(self) -> bool:
        """Whether every frame has a box."""
        return len(self.cover) > 0

    @property
    def visible(self) -> Tensor:
        """(T,) bool: frames in which the object is present, not hidden, and has a non-empty box."""
        return ~self.absent & (self.cover > 0) & (self.boxes[:, 2:] > 0).all(-1)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames in pixels."""
        with opened(self.frames[0]) as image:
            width, height = image.size
        return width, height

    def read(self, frame: int) -> Tensor:
        """A frame as (3, H, W) uint8, RGB.

        Raises:
            ValueError: the file cannot be read as an image.
        """
        return read_frame(self.frames[frame])

    def images(self) -> Iterator[Tensor]:
        """All frames in order, each read on demand."""
        return map(read_frame, self.frames)


class GOT10k(Dataset[TrackingSequence]):
    """The sequences of a split, each read on demand.

    Args:
        root: the folder with train, val and test.
        split: 'train', 'val' or 'test'.

    Raises:
        ValueError: an unknown split, a missing folder, a missing or empty list.txt, or a listed
            sequence without a folder. The files of a sequence are checked when the sequence is
            accessed; errors name the file.
    """

    def __init__(self, root: str | os.PathLike[str], split: str) -> None:
        if split not in SPLITS:
            raise ValueError(f"GOT-10k has the splits {SPLITS}; got {split!r}.")
        self.split, self.folder = split, Path(root) / split
        listed = self.folder / "list.txt"
        if not listed.is_file():
            raise ValueError(
                f"{root} is not a GOT-10k folder: {listed} is missing. Expected: "
                f"ROOT/train|val|test, each with list.txt and a folder per sequence."
            )
        self.names = tuple(listed.read_text().split())
        if not self.names:
            raise ValueError(f"{listed} lists no sequence.")
        missing = [name for name in self.names if not (self.folder / name).is_dir()]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(
                f"{listed} lists sequences without a folder: {', '.join(missing[:3])}{more}."
            )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[TrackingSequence]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> TrackingSequence:
        """The sequence with this index.

        Raises:
            ValueError: its folder does not have the published layout.
        """
        name = self.names[index]
        folder = self.folder / name
        frames = _frames(folder)
        boxes = _numbers(folder / "groundtruth.txt", columns=4)
        if self.split == "test":
            _require_length(folder / "groundtruth.txt", len(boxes), 1, "as in the test split")
            empty = torch.zeros(0, dtype=torch.int64)
            return TrackingSequence(name, frames, boxes, empty, empty.bool())
        _require_length(folder / "groundtruth.txt", len(boxes), len(frames), "one per frame")
        cover, absent = (_label(folder / f"{k}.label", len(frames)) for k in ("cover", "absence"))
        if not bool(((cover >= 0) & (cover <= _MOST_COVER)).all()):
            raise ValueError(f"{folder / 'cover.label'} has numbers outside [0, {_MOST_COVER}].")
        meta = _meta(folder / "meta_info.ini")
        return TrackingSequence(
            name,
            frames,
            boxes,
            cover,
            absent.bool(),
            meta["object_class"],
            meta["motion_class"],
        )


def read_frame(path: str | os.PathLike[str]) -> Tensor:
    """Read an image as (3, H, W) uint8, RGB.

    Raises:
        ValueError: the file cannot be read as an image, or has an EXIF orientation.
    """
    return read_image(path, orientation="refuse")


def _frames(folder: Path) -> tuple[Path, ...]:
    found = [file.name for file in files_in(folder, (".jpg",))]
    expected = [f"{number:08d}.jpg" for number in range(1, len(found) + 1)]
    if not found or found != expected:
        wrong = next((a for a, b in zip(found, expected, strict=True) if a != b), "no frame")
        raise ValueError(
            f"{folder} needs frames 00000001.jpg, 00000002.jpg and so on without a gap; got "
            f"{wrong}."
        )
    return tuple(folder / name for name in found)


def _numbers(path: Path, columns: int) -> Tensor:
    """The numbers of a text file, (rows, columns) float64; columns are separated by commas."""
    if not path.is_file():
        raise ValueError(f"There is no {path}.")
    rows = [line.split(",") for line in path.read_text().splitlines() if line.strip()]
    try:
        table = torch.tensor([[float(n) for n in row] for row in rows], dtype=torch.float64)
    except ValueError as error:
        raise ValueError(
            f"{path} needs {columns} numbers per line, separated by commas: {error}"
        ) from error
    if table.dim() != 2 or table.shape[1] != columns or not bool(table.isfinite().all()):
        raise ValueError(
            f"{path} needs {columns} finite numbers per line, separated by commas, got a table of "
            f"{tuple(table.shape)}."
        )
    return table


def _label(path: Path, frames: int) -> Tensor:
    values = _numbers(path, columns=1)[:, 0].long()
    _require_length(path, len(values), frames, "one per frame")
    return values


def _require_length(path: Path, got: int, wanted: int, why: str) -> None:
    if got != wanted:
        raise ValueError(f"{path} needs {wanted} line{'s' * (wanted > 1)}, {why}, got {got}.")


def _meta(path: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(delimiters=(":",), interpolation=None, strict=False)
    try:
        found = parser.read(path)
        meta = parser["METAINFO"]
        if found and {"object_class", "motion_class"} <= set(meta):
            return meta
    except (configparser.Error, KeyError) as error:
        raise ValueError(
            f"{path} needs a section METAINFO with lines 'key: value': {error}"
        ) from error
    raise ValueError(f"{path} needs object_class and motion_class in METAINFO.")
