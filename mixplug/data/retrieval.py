"""Data sets of metric learning: lists of images whose test classes were never trained on.

:func:`retrieval_set` reads what is on disk, in the layout in which its authors publish it, and
checks it against the split that the field reports on. Nothing is downloaded.

The counts of :data:`SOURCES` are those of the real files. Table 4.2 of the thesis prints others: it
halves each total, 11,788 images of CUB into 5,894 and 5,894, 16,185 of Cars196 into 8,092 and
8,093, 120,053 of SOP into 60,026 and 60,027, 52,712 of In-Shop into 26,356 and 26,356, and 22,634
and 7,982 classes likewise. No split by class comes to that.
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

_DIGITS_TRAIN = 5  # so many first classes


@dataclass(frozen=True)
class RetrievalSet:
    """One split: image ``i`` is of class ``class_names[labels[i]]``.

    Attributes:
        name: key of :data:`SOURCES`.
        split: 'train', 'test', or In-Shop's 'query' and 'gallery'.
        paths: of the images, under the root that was given; empty for digits.
        labels: from 0 on, without gaps; In-Shop's query and gallery number their classes alike.
        class_names: one per label, in the order of the authors' class numbers.
        images: (B, 1, H, W) in [0, 1], for digits only, which are not files.
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
        counts: (images, classes) of each split, or None where they are the user's own.
        layout: what :func:`retrieval_set` wants to find, and where it comes from.
        load: reads one split of what is under a root; None is what comes with scikit-learn.
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
        name: 'cub200', 'cars196', 'sop', 'inshop', 'folder' (your own: a folder per class) or
            'digits' (those of scikit-learn; nothing is read from disk).
        root: the folder of the data set, or the one that it was unpacked in; not for digits.
        split: 'train' or 'test'; of In-Shop 'train', 'query' or 'gallery'.
        check: whether images and classes are counted, and looked for on disk. Without it a list of
            fewer images is taken as it is: for subsets.
        size: side of the images, for digits only.

    Raises:
        ValueError: an unknown name or split, a malformed list, or other counts than the real ones.
        FileNotFoundError: lists or images are missing.
        ImportError: scipy (cars196) or scikit-learn (digits) is not installed.
    """
    if name not in SOURCES:
        raise ValueError(f"There is no data set {name!r}; there are {', '.join(SOURCES)}.")
    source = SOURCES[name]
    if split not in source.counts:
        raise ValueError(f"{name} has the splits {', '.join(source.counts)}, got {split!r}.")
    if source.load is None:
        return _digits(split, size)
    if root is None:
        raise ValueError(f"{name} needs the folder of its files as root. {source.layout}")
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
        raise ValueError(f"{name}, {split}: there is no image in {root}. {source.layout}")
    return RetrievalSet(
        name, split, tuple(listing.paths), tuple(labels[key] for key in listing.keys),
        tuple(listing.names[key] for key in labels),
    )  # fmt: skip


def _check(name: str, split: str, listing: listings.Listing, source: Source) -> None:
    """Other counts than the real ones, or images that are not there, are errors."""
    counted, real = (len(listing.paths), len(set(listing.keys))), source.counts[split]
    if real not in (None, counted):
        raise ValueError(
            f"{name}, {split}: counted {counted[0]:,} images of {counted[1]:,} classes, but there "
            f"are {real[0]:,} of {real[1]:,}. {source.layout} check=False takes a subset as it is."
        )
    there: dict[str, set[str]] = {}  # a folder is listed once, not once per image

    def exists(path: str) -> bool:
        folder, file = os.path.split(path)
        if folder not in there:
            there[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        return file in there[folder]

    missing = [path for path in listing.paths if not exists(path)]
    if missing:
        raise FileNotFoundError(
            f"{name}, {split}: {len(missing):,} of {len(listing.paths):,} images are listed but "
            f"are not there, the first is {missing[0]}. {source.layout}"
        )


def _digits(split: str, size: int) -> RetrievalSet:
    """Both splits of :func:`mixplug.data.digits.digits`, parted by class instead."""
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
            "Put a folder of images per class into root: the first half of them, sorted by name, "
            "trains and the others test; or into root/train and root/test.",
            listings.folder,
        ),
        "digits": Source({"train": (901, 5), "test": (896, 5)}, "", None),
    }
)
