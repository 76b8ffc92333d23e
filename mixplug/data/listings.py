"""Readers of the published layouts of the data sets in :mod:`mixplug.data.retrieval`.

There is one reader per data set. It takes a root and a split and returns a Listing. Missing files
raise FileNotFoundError, malformed files ValueError. The readers do not check whether a data set is
complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixplug.image_files import image_files, subfolders
from mixplug.optional import optional

_CUB_TRAIN, _CARS_TRAIN = 100, 98  # number of training classes, the first ones


@dataclass(frozen=True)
class Listing:
    """Content of one split as the authors list it, before labels are numbered.

    Attributes:
        paths: paths of the images.
        keys: class of each image, in the authors' numbering.
        names: name of each class of the split, by key.
    """

    paths: list[str]
    keys: list[Any]
    names: Mapping[Any, str]


def _home(root: Path, inner: str, mark: str) -> Path:
    """``root`` or, if ``mark`` is not in it, the subfolder that the authors' archive unpacks to."""
    return root / inner if not (root / mark).exists() and (root / inner).is_dir() else root


def rows_of(path: Path, columns: int, skip: int = 0) -> Iterator[list[str]]:
    """The lines of a text file, split at whitespace.

    Raises:
        ValueError: a line with another number of columns.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = line.split()
        if number <= skip or not row:
            continue
        if len(row) != columns:
            raise ValueError(f"{path}, line {number}: expected {columns} columns, got {line!r}.")
        yield row


def cub_images(root: Path) -> tuple[Path, dict[str, str], dict[str, int]]:
    """CUB200-2011: its folder, and the file name and class number of each image by image key."""
    home = _home(root, "CUB_200_2011", "images.txt")
    files = dict(rows_of(home / "images.txt", 2))
    classes = {key: int(label) for key, label in rows_of(home / "image_class_labels.txt", 2)}
    if files.keys() != classes.keys():
        raise ValueError(
            f"{home}: images.txt ({len(files):,} images) and image_class_labels.txt "
            f"({len(classes):,} images) do not list the same images."
        )
    return home, files, classes


def cub(root: Path, split: str) -> Listing:
    """CUB200-2011: two lists keyed by image; classes 1 to 100 are the training split."""
    home, files, classes = cub_images(root)
    rows = [
        (file, classes[key])
        for key, file in files.items()
        if (classes[key] <= _CUB_TRAIN) == (split == "train")
    ]
    names = {key: file.partition("/")[0] for file, key in rows}
    return Listing([str(home / "images" / file) for file, _ in rows], [k for _, k in rows], names)


def cars(root: Path, split: str) -> Listing:
    """Stanford Cars in one of three layouts; classes 1 to 98 are the training split in each."""
    if (root / "cars_annos.mat").exists():
        parts = [(root, "cars_annos.mat", "relative_im_path")]
        meta = root / "cars_annos.mat"
    elif (root / "devkit").is_dir():
        inner = "devkit/cars_test_annos_withlabels.mat"
        # torchvision expects this file beside devkit/
        labeled = inner if (root / inner).exists() else Path(inner).name
        parts = [
            (root / "cars_train", "devkit/cars_train_annos.mat", "fname"),
            (root / "cars_test", labeled, "fname"),
        ]
        meta = root / "devkit" / "cars_meta.mat"
    else:
        # The first 98 of the 196 classes are the same in sorted order and in the authors' order.
        return folder(root / "images" if (root / "images").is_dir() else root, split)
    rows = []
    for images, file, column in parts:
        table = _mat(root / file, "annotations")
        rows += [
            (str(images / name), int(key))
            for name, key in zip(table[column], table["class"], strict=True)
            if (key <= _CARS_TRAIN) == (split == "train")
        ]
    names = dict(enumerate(_mat(meta, "class_names"), 1))
    return Listing([p for p, _ in rows], [k for _, k in rows], {k: str(names[k]) for _, k in rows})


def _mat(path: Path, variable: str) -> Any:
    """A variable of a MATLAB file as a vector."""
    if not path.exists():
        raise FileNotFoundError(path)  # scipy would try the name with another suffix
    io = optional("scipy.io", "metric", "Reading the lists of cars196")
    return io.loadmat(path, squeeze_me=True)[variable].ravel()


def sop(root: Path, split: str) -> Listing:
    """Stanford Online Products: one list per split with image, class, super class and path."""
    home = _home(root, "Stanford_Online_Products", f"Ebay_{split}.txt")
    rows = list(rows_of(home / f"Ebay_{split}.txt", 4, skip=1))
    keys = [int(row[1]) for row in rows]
    return Listing([str(home / row[3]) for row in rows], keys, {key: str(key) for key in keys})


def inshop(root: Path, split: str) -> Listing:
    """In-shop Clothes Retrieval: one list of image, item and split."""
    home = _home(root, "In-shop Clothes Retrieval Benchmark", "Eval")
    partition = "list_eval_partition.txt"
    listing = home / partition if (home / partition).exists() else home / "Eval" / partition
    images = home / "Img" if (home / "Img" / "img").is_dir() else home
    rows = [
        row for row in rows_of(listing, 3, skip=2) if (row[2] == "train") == (split == "train")
    ]  # rows of query and gallery together, so that both number their classes in the same way
    own = [row for row in rows if row[2] == split]
    names = {item: item for _, item, _ in rows}
    return Listing([str(images / file) for file, _, _ in own], [item for _, item, _ in own], names)


def folder(root: Path, split: str) -> Listing:
    """A folder per class, either split by class here or already divided into train and test."""
    parts = [part for part in ("train", "test") if (root / part).is_dir()]
    if len(parts) == 1:
        raise ValueError(f"{root} needs both folders train and test, or neither; got {parts[0]}.")
    folders = _folders(root / split if parts else root)
    if not parts:
        half = len(folders) // 2
        folders = folders[:half] if split == "train" else folders[half:]
    images = {folder.name: _images(folder) for folder in folders}
    empty = [name for name, files in images.items() if not files]
    if empty:
        raise ValueError(f"{root}: these class folders have no images: {', '.join(empty)}.")
    return Listing(
        [str(file) for files in images.values() for file in files],
        [name for name, files in images.items() for _ in files],
        {name: name for name in images},
    )


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(root)
    return subfolders(root)


def _images(folder: Path) -> list[Path]:
    return sorted(image_files(folder, nested=True))
