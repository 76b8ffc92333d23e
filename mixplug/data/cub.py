"""CUB200-2011 as weakly supervised localization has it: all 200 classes, and a box of each bird.

The split is that of the authors, whose classes train and test alike; for that of metric learning,
by class, see :mod:`mixplug.data.retrieval`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixplug.data.listings import cub_images, rows_of

SPLITS = {"train": (5_994, "1"), "test": (5_794, "0")}  # images, and how they are marked
CLASSES = 200
_LAYOUT = (
    "Unpack CUB_200_2011.tgz of Caltech-UCSD Birds-200-2011, so that there are images/, "
    "images.txt, image_class_labels.txt, train_test_split.txt and bounding_boxes.txt."
)


@dataclass(frozen=True)
class Birds:
    """One split; image i is of class ``class_names[labels[i]]``.

    Attributes:
        paths: of the images.
        labels: from 0 on, (N,) int64; both splits number their classes alike.
        boxes: (N, 4) float64, left, top, right, bottom in pixels of the image; right and bottom are
            the first that are outside.
        class_names: without their numbers.
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
        root: CUB_200_2011, or the folder in which it is.
        split: 'train' or 'test'.
        check: whether images and classes are counted; False takes a subset as it is.

    Raises:
        ValueError: another split, a list that is missing or malformed, an image without a box or a
            side, other counts than the real ones, or an image that is not there.
    """
    if split not in SPLITS:
        raise ValueError(f"CUB has the splits {', '.join(SPLITS)}, got {split!r}.")
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
                f"{home / name} lacks {len(without):,} of {len(files):,} images, the first is "
                f"{without[0]}, {files[without[0]]}."
            )
    count, mark = SPLITS[split]
    keys = [key for key in files if sides[key] == mark]
    names = {number: files[key].partition("/")[0] for key, number in classes.items()}
    if not keys or (check and (len(keys), len(names)) != (count, CLASSES)):
        raise ValueError(
            f"CUB, {split}: {home} lists {len(keys):,} images of {len(names):,} classes, but there "
            f"are {count:,} of {CLASSES}. check=False takes a subset as it is."
        )
    paths = [home / "images" / files[key] for key in keys]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"CUB, {split}: {len(missing):,} of {len(paths):,} images are not there, the first is "
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
