"""Data sets for metric learning: the test classes are not among the training classes.

:func:`retrieval_set` reads the files from disk in the layout that the authors publish. It checks
them against the split on which papers report results. Nothing is downloaded.

The counts in :data:`SOURCES` are those of the published files. The thesis prints others (Table
4.2), which halve each total: 11,788 images of CUB into 5,894 and 5,894, 16,185 of Cars196 into
8,092 and 8,093, 120,053 of SOP into 60,026 and 60,027, 52,712 of In-Shop into 26,356 and 26,356,
and 22,634 and 7,982 classes in the same way. No split by class has these counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from mixplug.data import listings
from mixplug.data.digits import digits

_DIGITS_TRAIN = 5  # number of training classes, the first ones


@dataclass(frozen=True)
class RetrievalSet:
    """One split: image ``i`` has the class ``class_names[labels[i]]``.

    Attributes:
        name: key of :data:`SOURCES`.
        split: 'train', 'test', or In-Shop's 'query' and 'gallery'.
        paths: paths of the images under the given root; empty for digits.
        labels: classes from 0 without gaps; In-Shop's query and gallery share one numbering.
        class_names: one per label, in the order of the authors' class numbers.
        images: (B, 1, H, W) in [0, 1], for digits only, which have no files.
    """

    name: str
    split: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    images: Tensor | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        counts: (images, classes) of each split; None for the user's own images.
        layout: text that describes the expected files and their origin.
        load: function that reads one split from a root; None for the digits of scikit-learn.
    """

    counts: Mapping[str, tuple[int, int] | None]
    layout: str
    load: Callable[[Path, str], listings.Listing] | None


def retrieval_set(
    name: str, root: str | Path | None = None, split: str = "train", *, check: bool = True,
    size: int = 16,
) -> RetrievalSet:  # fmt: skip
    """The images of one split and their classes.

    Args:
        name: 'cub200', 'cars196', 'sop', 'inshop', 'folder' (your own images, one folder per class)
            or 'digits' (from scikit-learn; reads no image files).
        root: the folder of the data set, or its parent; not used for digits.
        split: 'train' or 'test'; for In-Shop 'train', 'query' or 'gallery'.
        check: whether to check the counts of images and classes, and that the images exist. False
            accepts a subset.
        size: side of the images, for digits only.

    Raises:
        ValueError: an unknown name or split, a malformed list, or other counts than the official
            ones.
        FileNotFoundError: lists or images are missing.
        ImportError: scipy (cars196) or scikit-learn (digits) is not installed.
    """
    if name not in SOURCES:
        raise ValueError(f"name must be one of {', '.join(SOURCES)}; got {name!r}.")
    source = SOURCES[name]
    if split not in source.counts:
        raise ValueError(f"{name} has the splits {', '.join(source.counts)}; got {split!r}.")
    if source.load is None:
        return _digits(split, size)
    if root is None:
        raise ValueError(f"{name} needs root, the folder of its files; got None. {source.layout}")
    try:
        listing = source.load(Path(root), split)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: {error.filename or error} is missing. {source.layout}"
        ) from None
    labels = {key: label for label, key in enumerate(sorted(listing.names))}
    if check:
        _check(name, split, listing, source)
    if not listing.paths:
        raise ValueError(f"{name}, {split}: there are no images in {root}. {source.layout}")
    return RetrievalSet(
        name, split, tuple(listing.paths), tuple(labels[key] for key in listing.keys),
        tuple(listing.names[key] for key in labels),
    )  # fmt: skip


def _check(name: str, split: str, listing: listings.Listing, source: Source) -> None:
    """Raise an error if the counts are not the official ones or if images are missing."""
    counted, real = (len(listing.paths), len(set(listing.keys))), source.counts[split]
    if real not in (None, counted):
        raise ValueError(
            f"{name}, {split}: found {counted[0]:,} images of {counted[1]:,} classes, but the "
            f"official split has {real[0]:,} of {real[1]:,}. {source.layout} check=False accepts "
            f"a subset."
        )
    files: dict[str, set[str]] = {}  # list each folder once, not once per image

    def exists(path: str) -> bool:
        folder, file = os.path.split(path)
        if folder not in files:
            files[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        return file in files[folder]

    missing = [path for path in listing.paths if not exists(path)]
    if missing:
        raise FileNotFoundError(
            f"{name}, {split}: {len(missing):,} of {len(listing.paths):,} listed images are "
            f"missing. The first is {missing[0]}. {source.layout}"
        )


def _digits(split: str, size: int) -> RetrievalSet:
    """The images of both splits of :func:`mixplug.data.digits.digits`, split by class instead."""
    both = digits("train", size), digits("test", size)
    images, classes = (torch.cat(parts) for parts in zip(*both, strict=True))
    own = (classes < _DIGITS_TRAIN) == (split == "train")
    first = 0 if split == "train" else _DIGITS_TRAIN
    return RetrievalSet(
        "digits", split, (), tuple((classes[own] - first).tolist()),
        tuple(str(first + k) for k in range(_DIGITS_TRAIN)), images[own],
    )  # fmt: skip


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "cub200": Source(
            {"train": (5_864, 100), "test": (5_924, 100)},
            "Unpack CUB_200_2011.tgz of Caltech-UCSD Birds-200-2011 into root, so that there are "
            "CUB_200_2011/images.txt, CUB_200_2011/image_class_labels.txt and "
            "CUB_200_2011/images/.",
            listings.cub,
        ),
        "cars196": Source(
            {"train": (8_054, 98), "test": (8_131, 98)},
            "Put Stanford Cars into root as cars_annos.mat and car_ims/; or as cars_train/, "
            "cars_test/ and devkit/ with cars_meta.mat, cars_train_annos.mat and "
            "cars_test_annos_withlabels.mat; or as 196 folders, one per class.",
            listings.cars,
        ),
        "sop": Source(
            {"train": (59_551, 11_318), "test": (60_502, 11_316)},
            "Unpack Stanford_Online_Products.zip into root, so that there are "
            "Stanford_Online_Products/Ebay_train.txt, Ebay_test.txt and bicycle_final/ etc.",
            listings.sop,
        ),
        "inshop": Source(
            {"train": (25_882, 3_997), "query": (14_218, 3_985), "gallery": (12_612, 3_985)},
            "Put Eval/list_eval_partition.txt and Img/img/ of DeepFashion's In-shop Clothes "
            "Retrieval Benchmark into root.",
            listings.inshop,
        ),
        "folder": Source(
            {"train": None, "test": None},
            "Put one folder of images per class into root: the first half of the classes, sorted "
            "by name, is the training split, the rest is the test split. Or put them into "
            "root/train and root/test.",
            listings.folder,
        ),
        "digits": Source({"train": (901, 5), "test": (896, 5)}, "", None),
    }
)
