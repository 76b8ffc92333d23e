"""Miniature data sets in the published layouts, and the checks of their lists.

Every layout is written in the format of the real files. Tests of the official counts use lists of
the real length.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import sklearn.datasets
import torch

from mixplug.data import retrieval
from mixplug.data.digits import digits
from mixplug.data.retrieval import SOURCES, RetrievalSet, retrieval_set

CARS_FIELDS = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class"]


def touch(root: Path, files: Iterable[str]) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def lines(path: Path, rows: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def cub(root: Path, classes: Iterable[int], each: int = 2) -> None:
    """images.txt and image_class_labels.txt; the images are not sorted by class."""
    files = [f"{k:03}.Bird_{k}/Bird_{k}_{i:04}.jpg" for i in range(each) for k in classes]
    home = root / "CUB_200_2011"
    lines(home / "images.txt", (f"{n} {file}" for n, file in enumerate(files, 1)))
    lines(
        home / "image_class_labels.txt",
        (f"{n} {int(file[:3])}" for n, file in reversed(list(enumerate(files, 1)))),
    )
    touch(home / "images", files)


def cars_struct(names: list[str], classes: list[int], column: str, *more: str) -> np.ndarray:
    """A struct array as MATLAB writes it: 1 x B, with a 1 x 1 array in every field."""
    fields = [*CARS_FIELDS, column, *more]
    table = np.empty((1, len(names)), dtype=[(field, object) for field in fields])
    for i, (name, k) in enumerate(zip(names, classes, strict=True)):
        table[0, i] = (39, 116, 569, 375, np.uint8(k), name, *([np.uint8(0)] * len(more)))
    return table


def cars_names() -> np.ndarray:
    """A 1 x 196 cell array whose order is not the sorted one."""
    return np.array([f"Car {196 - k}" for k in range(196)], dtype=object)[None]


def cars_annos(root: Path, classes: list[int]) -> None:
    """cars_annos.mat and car_ims/."""
    root.mkdir(parents=True, exist_ok=True)
    files = [f"car_ims/{n:06}.jpg" for n in range(1, len(classes) + 1)]
    table = cars_struct(files, classes, "relative_im_path", "test")
    scipy.io.savemat(root / "cars_annos.mat", {"annotations": table, "class_names": cars_names()})
    touch(root, files)


def cars_devkit(root: Path, train: list[int], test: list[int], labeled: str) -> None:
    """cars_train/, cars_test/ and devkit/."""
    (root / "devkit").mkdir(parents=True)
    for folder, file, classes in (
        ("cars_train", "devkit/cars_train_annos.mat", train),
        ("cars_test", labeled, test),
    ):
        names = [f"{n:05}.jpg" for n in range(1, len(classes) + 1)]
        scipy.io.savemat(root / file, {"annotations": cars_struct(names, classes, "fname")})
        touch(root / folder, names)
    scipy.io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": cars_names()})


def sop(root: Path, train: Iterable[int], test: Iterable[int], each: int = 3) -> None:
    number = itertools.count(1)
    home = root / "Stanford_Online_Products"
    for split, classes in (("train", train), ("test", test)):
        rows = [(k, f"bicycle_final/1110{k}_{i}.JPG") for k in classes for i in range(each)]
        listed = (f"{next(number)} {k} 1 {file}" for k, file in rows)
        lines(home / f"Ebay_{split}.txt", ["image_id class_id super_class_id path", *listed])
        touch(home, (file for _, file in rows))


def inshop(root: Path, statuses: dict[int, list[str]]) -> None:
    """Write In-Shop's list; ``statuses`` gives the status of each image of an item."""
    rows = [
        (f"img/WOMEN/Dresses/id_{item:08}/{n:02}_1_front.jpg", f"id_{item:08}", status)
        for item, given in statuses.items()
        for n, status in enumerate(given)
    ]
    listed = (f"{file:70}{item}  {status}" for file, item, status in rows)
    header = [str(len(rows)), "image_name item_id evaluation_status"]
    lines(root / "Eval" / "list_eval_partition.txt", [*header, *listed])
    touch(root / "Img", (file for file, _, _ in rows))


def per_class(found: RetrievalSet) -> dict[str, list[str]]:
    """Check the properties of every set, and return file names by class name."""
    assert sorted(set(found.labels)) == list(range(len(found.class_names)))
    assert len(found.paths) == len(found.labels) == len(found) == len(set(found.paths))
    assert all(Path(path).is_file() for path in found.paths)
    groups: dict[str, list[str]] = {name: [] for name in found.class_names}
    for path, label in zip(found.paths, found.labels, strict=True):
        groups[found.class_names[label]].append(Path(path).name)
    return groups


@pytest.mark.parametrize("inner", ["", "CUB_200_2011"], ids=["archive's parent", "archive"])
def test_cub_trains_on_classes_up_to_100(tmp_path: Path, inner: str) -> None:
    cub(tmp_path, [1, 2, 99, 100, 101, 200])
    found = {
        split: per_class(retrieval_set("cub200", tmp_path / inner, split, check=False))
        for split in ("train", "test")
    }
    for split, classes in {"train": [1, 2, 99, 100], "test": [101, 200]}.items():
        assert found[split] == {
            f"{k:03}.Bird_{k}": [f"Bird_{k}_0000.jpg", f"Bird_{k}_0001.jpg"] for k in classes
        }


def test_labels_follow_the_authors_class_numbers(tmp_path: Path) -> None:
    cub(tmp_path, [30, 4, 7], each=1)
    found = retrieval_set("cub200", tmp_path, check=False)
    assert found.labels == (2, 0, 1)
    assert found.class_names == ("004.Bird_4", "007.Bird_7", "030.Bird_30")


def test_cub_lists_that_do_not_match(tmp_path: Path) -> None:
    cub(tmp_path, [1, 2])
    home = tmp_path / "CUB_200_2011"
    lines(home / "image_class_labels.txt", ["1 1", "2 2", "7 2", "4 2"])
    message = r"images\.txt \(4 images\) and .* \(4 images\) do not list the same images\."
    with pytest.raises(ValueError, match=message):
        retrieval_set("cub200", tmp_path)
    lines(home / "images.txt", ["1 a.jpg", "2 b.jpg c"])
    with pytest.raises(
        ValueError, match=r"images\.txt, line 2: expected 2 columns, got '2 b\.jpg c'"
    ):
        retrieval_set("cub200", tmp_path)


CARS = [3, 98, 99, 196, 3]


def test_cars_with_one_list(tmp_path: Path) -> None:
    """Classes 98 and 99 are in different splits; names follow the list, unsorted."""
    cars_annos(tmp_path, CARS)
    train, test = (
        retrieval_set("cars196", tmp_path, split, check=False) for split in ("train", "test")
    )
    assert per_class(train) == {"Car 194": ["000001.jpg", "000005.jpg"], "Car 99": ["000002.jpg"]}
    assert per_class(test) == {"Car 98": ["000003.jpg"], "Car 1": ["000004.jpg"]}
    assert {Path(path).parent for path in train.paths} == {tmp_path / "car_ims"}


@pytest.mark.parametrize("place", ["devkit/", ""], ids=["devkit", "root"])
def test_cars_with_a_devkit_is_split_by_class(tmp_path: Path, place: str) -> None:
    """Both halves of the devkit contain all classes and contribute to both splits."""
    cars_devkit(tmp_path, CARS, [3, 196], f"{place}cars_test_annos_withlabels.mat")
    train, test = (
        retrieval_set("cars196", tmp_path, split, check=False) for split in ("train", "test")
    )
    assert [Path(path).parent.name for path in train.paths] == [*["cars_train"] * 3, "cars_test"]
    assert per_class(train) == {
        "Car 194": ["00001.jpg", "00005.jpg", "00001.jpg"],
        "Car 99": ["00002.jpg"],
    }
    assert per_class(test) == {"Car 98": ["00003.jpg"], "Car 1": ["00004.jpg", "00002.jpg"]}


@pytest.mark.parametrize("inner", ["", "images"])
def test_cars_with_a_folder_per_class(tmp_path: Path, inner: str) -> None:
    names = [f"Car {k:03}" for k in range(196)]
    touch(tmp_path / inner, (f"{name}/{i}.jpg" for name in names for i in range(2)))
    train, test = (
        retrieval_set("cars196", tmp_path, split, check=False) for split in ("train", "test")
    )
    assert list(per_class(train)) == names[:98] and list(per_class(test)) == names[98:]


def test_a_devkit_without_the_labels_of_its_test_half(tmp_path: Path) -> None:
    cars_devkit(tmp_path, CARS, CARS, "devkit/cars_test_annos_withlabels.mat")
    (tmp_path / "devkit" / "cars_test_annos_withlabels.mat").unlink()
    message = r"cars196: \S+cars_test_annos_withlabels\.mat is missing\. Put Stanford Cars into"
    with pytest.raises(FileNotFoundError, match=message):
        retrieval_set("cars196", tmp_path)


@pytest.mark.parametrize("inner", ["", "Stanford_Online_Products"])
def test_sop_has_a_list_per_split(tmp_path: Path, inner: str) -> None:
    sop(tmp_path, [1, 2, 10], [11319, 11320])
    train, test = (
        retrieval_set("sop", tmp_path / inner, split, check=False) for split in ("train", "test")
    )
    assert train.class_names == ("1", "2", "10")  # by number, not as text
    assert per_class(train)["10"] == [f"111010_{i}.JPG" for i in range(3)]
    assert test.class_names == ("11319", "11320") and test.labels == (0, 0, 0, 1, 1, 1)
    per_class(test)


INSHOP = {
    7: ["train", "train"],
    2: ["query", "gallery", "gallery"],
    5: ["gallery", "query"],
    1: ["train"],
    9: ["gallery"],
}


def test_inshop_query_and_gallery_share_class_numbers(tmp_path: Path) -> None:
    inshop(tmp_path, INSHOP)
    train, query, gallery = (
        retrieval_set("inshop", tmp_path, split, check=False)
        for split in ("train", "query", "gallery")
    )
    assert train.class_names == ("id_00000001", "id_00000007") and train.labels == (1, 1, 0)
    assert query.class_names == gallery.class_names == (
        "id_00000002", "id_00000005", "id_00000009"
    )  # fmt: skip
    assert query.labels == (0, 1) and gallery.labels == (0, 0, 1, 2)
    assert per_class(gallery)["id_00000002"] == ["01_1_front.jpg", "02_1_front.jpg"]
    assert not set(train.paths) & {*query.paths, *gallery.paths}


def test_other_layouts_of_inshop(tmp_path: Path) -> None:
    """The list in the root with the images beside it, or all in the folder of the archive."""
    inshop(tmp_path / "In-shop Clothes Retrieval Benchmark", INSHOP)
    inner = retrieval_set("inshop", tmp_path, "query", check=False)
    per_class(retrieval_set("inshop", tmp_path, "gallery", check=False))
    flat = tmp_path / "flat"
    inshop(flat, INSHOP)
    shutil.move(flat / "Eval" / "list_eval_partition.txt", flat)
    shutil.move(flat / "Img" / "img", flat / "img")
    found = retrieval_set("inshop", flat, "query", check=False)
    assert found.labels == inner.labels and all(Path(path).is_file() for path in found.paths)


def test_class_folders_are_split_in_half(tmp_path: Path) -> None:
    """Five classes: two are for training. Other files and hidden folders are ignored."""
    touch(tmp_path, [*(f"{k}/{i}.PNG" for k in "edcba" for i in (1, 0)), "a/deep/2.jpg"])
    touch(tmp_path, ["a/notes.txt", "labels.csv", ".cache/0.png"])
    train, test = (retrieval_set("folder", tmp_path, split) for split in ("train", "test"))
    assert per_class(train) == {"a": ["0.PNG", "1.PNG", "2.jpg"], "b": ["0.PNG", "1.PNG"]}
    assert list(per_class(test)) == ["c", "d", "e"]


def test_folders_train_and_test_define_the_splits(tmp_path: Path) -> None:
    touch(tmp_path, ["train/a/0.png", "train/b/0.png", "train/c/0.png", "test/d/0.png"])
    train, test = (retrieval_set("folder", tmp_path, split) for split in ("train", "test"))
    assert list(per_class(train)) == ["a", "b", "c"] and list(per_class(test)) == ["d"]


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        (["train/a/0.png"], ValueError, r"needs both folders train and test, or .* train\."),
        (["a/0.png", "b/0.txt"], ValueError, r"these class folders have no images: b\."),
        (["a/0.png"], ValueError, r"folder, train: there are no images in .* Put one folder of "),
        (["0.png"], ValueError, r"folder, train: there are no images in "),
        ([], FileNotFoundError, r"folder: \S+ is missing\. Put one folder of images per class"),
    ],
)
def test_invalid_class_folders(
    tmp_path: Path, files: list[str], error: type[Exception], message: str
) -> None:
    touch(tmp_path / "data", files)
    split = "test" if files[-1:] == ["b/0.txt"] else "train"
    with pytest.raises(error, match=message):
        retrieval_set("folder", tmp_path / "data", split)


def test_digits_are_split_by_class() -> None:
    """All 1797 digits occur once, compared with scikit-learn's own arrays."""
    train, test = (retrieval_set("digits", split=split, size=8) for split in ("train", "test"))
    assert (len(train), len(test)) == (901, 896)
    assert train.class_names == tuple("01234") and test.class_names == tuple("56789")
    bunch = sklearn.datasets.load_digits()
    real = Counter(
        (scan.tobytes(), int(k)) for scan, k in zip(bunch.images / 16, bunch.target, strict=True)
    )
    ours: Counter[tuple[bytes, int]] = Counter()
    for found in (train, test):
        assert sorted(set(found.labels)) == list(range(5)) and found.paths == ()
        for scan, label in zip(found.images[:, 0].double().numpy(), found.labels, strict=True):
            ours[scan.tobytes(), int(found.class_names[label])] += 1
    assert ours == real


def test_digits_of_another_size() -> None:
    found = retrieval_set("digits", split="test", size=12)
    images, classes = digits("train", 12)
    assert torch.equal(found.images[: int((classes >= 5).sum())], images[classes >= 5])


# Images and classes in the authors' own lists.
AUTHORS = {
    "cub200": {"train": (5_864, 100), "test": (5_924, 100)},
    "cars196": {"train": (8_054, 98), "test": (8_131, 98)},
    "sop": {"train": (59_551, 11_318), "test": (60_502, 11_316)},
    "inshop": {"train": (25_882, 3_997), "query": (14_218, 3_985), "gallery": (12_612, 3_985)},
}


def spread(images: int, classes: int) -> list[int]:
    """Classes of ``images`` images, distributed evenly and numbered from 0."""
    return [i % classes for i in range(images)]


def write_real(name: str, root: Path, take: int = 0) -> None:
    """Lists as long as the real ones, without the last ``take`` rows of each split. No images."""
    counts = AUTHORS[name]
    rows, first = {}, 1
    for split, (images, classes) in counts.items():
        rows[split] = [first + k for k in spread(images, classes)][: images - take]
        first += 0 if split == "query" else classes
    if name == "cub200":
        both = list(enumerate(rows["train"] + rows["test"], 1))
        lines(root / "images.txt", (f"{n} {k:03}.B/{n}.jpg" for n, k in both))
        lines(root / "image_class_labels.txt", (f"{n} {k}" for n, k in both))
    if name == "cars196":
        both = rows["train"] + rows["test"]
        table = np.empty((1, len(both)), [("class", object), ("relative_im_path", object)])
        table["class"][0], table["relative_im_path"] = both, "0.jpg"
        scipy.io.savemat(
            root / "cars_annos.mat", {"annotations": table, "class_names": cars_names()}
        )
    if name == "sop":
        for split, given in rows.items():
            lines(root / f"Ebay_{split}.txt", ["header", *(f"0 {k} 1 {k}.JPG" for k in given)])
    if name == "inshop":
        listed = [f"img/{k}.jpg id_{k:08} {split}" for split, ks in rows.items() for k in ks]
        lines(root / "list_eval_partition.txt", ["0", "header", *listed])


REAL = [(name, split) for name, counts in AUTHORS.items() for split in counts]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four data sets in full length, and with one image missing per split."""
    root = tmp_path_factory.mktemp("real")
    for name, take in itertools.product(AUTHORS, (0, 1)):
        home = root / f"{name}-{take}"
        home.mkdir()
        write_real(name, home, take)
    return root


@pytest.mark.parametrize(("name", "split"), REAL)
def test_counts_equal_the_official_split(real: Path, name: str, split: str) -> None:
    """Full lists pass the count and fail only on the images; one image less fails the count."""
    images, classes = AUTHORS[name][split]
    full, short = real / f"{name}-0", real / f"{name}-1"
    with pytest.raises(FileNotFoundError, match=rf"{images:,} of {images:,} listed images are"):
        retrieval_set(name, full, split)
    with pytest.raises(ValueError) as caught:
        retrieval_set(name, short, split)
    assert str(caught.value) == (
        f"{name}, {split}: found {images - 1:,} images of {classes:,} classes, but the official "
        f"split has {images:,} of {classes:,}. {SOURCES[name].layout} check=False accepts a subset."
    )
    assert len(retrieval_set(name, short, split, check=False)) == images - 1


def test_counts_add_up_to_the_authors_totals() -> None:
    """Totals from the data sets' own pages; Table 4.2 of the thesis halves them."""
    totals = {
        "cub200": (11_788, 200),
        "cars196": (16_185, 196),
        "sop": (120_053, 22_634),
        "inshop": (52_712, 7_982),
    }
    for name, (images, classes) in totals.items():
        counts = SOURCES[name].counts
        assert sum(count[0] for count in counts.values()) == images
        assert sum(counts[s][1] for s in counts if s != "gallery") == classes
    digit_counts = Counter(sklearn.datasets.load_digits().target.tolist())
    assert SOURCES["digits"].counts == {
        "train": (sum(digit_counts[k] for k in range(5)), 5),
        "test": (sum(digit_counts[k] for k in range(5, 10)), 5),
    }


def test_too_few_classes_are_detected(tmp_path: Path) -> None:
    """The number of images is right, but one class is missing."""
    images, classes = SOURCES["sop"].counts["test"]
    rows = [f"0 {1 + k} 1 {k}.JPG" for k in spread(images, classes - 1)]
    lines(tmp_path / "Ebay_test.txt", ["header", *rows])
    with pytest.raises(ValueError, match=r"found 60,502 images of 11,315 classes, but the off"):
        retrieval_set("sop", tmp_path, "test")


def test_missing_images_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cub(tmp_path, [1, 101])
    counts = {"train": (2, 1), "test": (2, 1)}
    small = retrieval.Source(counts, "The layout.", SOURCES["cub200"].load)
    monkeypatch.setattr(retrieval, "SOURCES", {"cub200": small})
    per_class(retrieval_set("cub200", tmp_path))
    (tmp_path / "CUB_200_2011/images/101.Bird_101/Bird_101_0001.jpg").unlink()
    retrieval_set("cub200", tmp_path, "train")
    message = r"cub200, test: 1 of 2 listed images are missing\. The first is \S+_0001\.jpg"
    with pytest.raises(FileNotFoundError, match=message):
        retrieval_set("cub200", tmp_path, "test")
    assert len(retrieval_set("cub200", tmp_path, "test", check=False)) == 2


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cub200", r"images\.txt"),
        ("cars196", "nowhere"),
        ("sop", r"Ebay_train\.txt"),
        ("inshop", r"Eval/list_eval_partition\.txt"),
        ("folder", "nowhere"),
    ],
)
def test_the_error_for_an_empty_root_describes_the_layout(
    tmp_path: Path, name: str, file: str
) -> None:
    for check in (True, False):
        with pytest.raises(FileNotFoundError, match=rf"^{name}: \S+{file} is missing\.") as caught:
            retrieval_set(name, tmp_path / "nowhere", check=check)
        assert SOURCES[name].layout in str(caught.value)
    with pytest.raises(ValueError, match=f"{name} needs root, the folder of its files; got"):
        retrieval_set(name)


def test_unknown_names_and_splits() -> None:
    message = r"name must be one of cub200, cars196, sop, inshop, folder, digits; got 'cub'\."
    with pytest.raises(ValueError, match=message):
        retrieval_set("cub", "data")
    with pytest.raises(
        ValueError, match=r"inshop has the splits train, query, gallery; got 'test'"
    ):
        retrieval_set("inshop", "data", "test")
    with pytest.raises(ValueError, match=r"digits has the splits train, test; got 'val'\."):
        retrieval_set("digits", split="val")
