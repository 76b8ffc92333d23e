"""CUB200-2011 for weakly supervised localization: all 200 classes, and a box for each bird.

This is the authors' split, in which train and test have the same classes. For the split by class
that metric learning uses, see :mod:`mixplug.data.retrieval`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixplug.data.listings import cub_images, rows_of

SPLITS = {"train": (5_994, "1"), "test": (5_794, "0")}  # number of images, mark in the list
CLASSES = 200
_LAYOUT = (
    "Unpack CUB_200_2011.tgz of Caltech-UCSD Birds-200-2011, so that there are images/, "
    "images.txt, image_class_labels.txt, train_test_split.txt and bounding_boxes.txt."
)


@dataclass(frozen=True)
class Birds:
    """Images of one split; image i has the class ``class_names[labels[i]]``.

    Attributes:
        paths: paths of the images.
        labels: classes from 0, (N,) int64, numbered in the same way in both splits.
        boxes: (N, 4) float64, left, top, right, bottom in pixels of the image; right and bottom are
            exclusive.
        class_names: names of the classes without the numbers of the folders.
    """

    paths: tuple[str, ...]
    labels: Tensor
    boxes: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def birds(root: str | Path, split: str = "test", check: bool = True) -> Birds:
    """The images of one split.

    Args:
        root: the folder CUB_200_2011, or its parent.
        split: 'train' or 'test'.
        check: whether the numbers of images and classes must be the official ones; False accepts a
            subset.

    Raises:
        ValueError: an unknown split, a missing or malformed list, an image without a box or without
            a split, other numbers than the official ones, or a missing image file.
    """
    if split not in SPLITS:
        raise ValueError(f"CUB has the splits {', '.join(SPLITS)}; got {split!r}.")
    try:
        home, files, classes = cub_images(Path(root))
        sides = dict(rows_of(home / "train_test_split.txt", 2))
        corners = {
            row[0]: [float(number) for number in row[1:]]
            for row in rows_of(home / "bounding_boxes.txt", 5)
        }
    except FileNotFoundError as error:
        raise ValueError(f"CUB: {error.filename} is missing. {_LAYOUT}") from None
    for name, given in (("train_test_split.txt", sides), ("bounding_boxes.txt", corners)):
        without = [key for key in files if key not in given]
        if without:
            raise ValueError(
                f"{home / name} has no entry for {len(without):,} of {len(files):,} images. The "
                f"first is image {without[0]}, {files[without[0]]}."
            )
    count, mark = SPLITS[split]
    keys = [key for key in files if sides[key] == mark]
    names = {number: files[key].partition("/")[0] for key, number in classes.items()}
    if not keys or (check and (len(keys), len(names)) != (count, CLASSES)):
        raise ValueError(
            f"CUB, {split}: {home} lists {len(keys):,} images of {len(names):,} classes, but the "
            f"official split has {count:,} of {CLASSES}. check=False accepts a subset."
        )
    paths = [home / "images" / files[key] for key in keys]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"CUB, {split}: {len(missing):,} of {len(paths):,} images are missing. The first is "
            f"{missing[0]}. {_LAYOUT}"
        )
    place = {number: label for label, number in enumerate(sorted(names))}
    starts, sizes = torch.tensor([corners[key] for key in keys]).double().split(2, 1)
    if not (sizes > 0).all():
        worst = keys[int((sizes <= 0).any(1).nonzero()[0])]
        raise ValueError(
            f"{home / 'bounding_boxes.txt'}: image {worst} needs a width and height > 0, got "
            f"{corners[worst][2:]}."
        )
    return Birds(
        tuple(map(str, paths)),
        torch.tensor([place[classes[key]] for key in keys]),
        torch.cat([starts, starts + sizes], 1),
        tuple(names[number].partition(".")[2] or names[number] for number in place),
    )
