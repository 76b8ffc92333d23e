"""Office-Home in the open-domain setting: classes of the domains, and images of the splits."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import folders
import pytest

from mixplug.data.office_home import CLASSES, DOMAINS, KNOWN, label_sets, open_domain, sources

# Classes of the three sources and of the target, from the authors of the setting.
FIRST = [*range(0, 3), *range(3, 9), *range(9, 15), *range(21, 32)]
SECOND = [*range(0, 3), *range(3, 9), *range(15, 21), *range(32, 43)]
THIRD = [*range(0, 3), *range(9, 15), *range(15, 21), *range(43, 54)]
TARGET = [0, 3, 4, 9, 10, 15, 16, 21, 22, 23, 32, 33, 34, 43, 44, 45, *range(54, 65)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images per class, nine for training and two for validation."""
    return folders.office_home(tmp_path_factory.mktemp("data") / "home", 11, CLASSES)


@pytest.fixture
def lists(root: Path) -> Path:
    """The authors' lists, with the *first* two images of a class in val."""
    home = root / "image_list"
    home.mkdir()
    for domain in ("Art", "Clipart", "Product", "Real_World"):
        for split, numbers in (("val", (1, 2)), ("train", range(3, 12))):
            rows = [
                f"{domain}/{name}/{n:05}.jpg {k}\n"
                for k, name in enumerate(CLASSES)
                for n in numbers
            ]
            (home / f"{domain}_{split}.txt").write_text("".join(rows))
    yield home
    shutil.rmtree(home)


def test_label_sets_equal_the_authors() -> None:
    assert [sorted(part) for part in label_sets()] == [FIRST, SECOND, THIRD, TARGET]
    assert len(CLASSES) == len(set(CLASSES)) == 65 and KNOWN == 54
    assert set(FIRST) | set(SECOND) | set(THIRD) == set(range(KNOWN))
    assert [CLASSES[k] for k in (0, 20, 21, 32, 43, 54, 64)] == [
        "Drill", "Postit_Notes", "Mug", "Backpack", "Printer", "Clipboards", "Marker",
    ]  # fmt: skip


@pytest.mark.parametrize("target", DOMAINS)
def test_sources_have_their_own_classes(root: Path, target: str) -> None:
    names = sources(target)
    assert set(names) | {target} == set(DOMAINS) and list(names) == sorted(names)
    train, val = (open_domain(root, target, split) for split in ("train", "val"))
    for name, own in zip(names, (FIRST, SECOND, THIRD), strict=True):
        number = DOMAINS.index(name)
        for found, each in ((train, 9), (val, 2)):
            rows = [i for i, domain in enumerate(found.domains) if domain == number]
            assert Counter(found.labels[i] for i in rows) == dict.fromkeys(own, each)
            for i in rows:
                path = Path(found.paths[i])
                assert path.parts[-3] == name and path.parts[-2] == CLASSES[found.labels[i]]
    assert not set(train.paths) & set(val.paths) and not train.lists
    assert {Path(path).stem for path in val.paths} == {"00010", "00011"}


def test_the_target_has_known_and_unknown_classes(root: Path) -> None:
    test = open_domain(root, "real_world", "test")
    assert set(test.domains) == {3} and len(test) == 11 * 27
    named = [(Path(path).parts[-3], CLASSES.index(Path(path).parts[-2])) for path in test.paths]
    assert {domain for domain, _ in named} == {"Real World"}
    assert Counter(k for _, k in named) == dict.fromkeys(TARGET, 11)
    expected = [k if k < 54 else 54 for _, k in named]
    assert list(test.labels) == expected and expected.count(54) == 121


def test_the_authors_lists_are_followed(root: Path, lists: Path) -> None:
    (root / "Real World").rename(root / "Real_World")
    try:
        train, val = (open_domain(root, "Art", split) for split in ("train", "val"))
        assert train.lists and val.lists and not open_domain(root, "Art", "test").lists
        assert {Path(path).stem for path in val.paths} == {"00001", "00002"}
        assert len(val) == 3 * 26 * 2 and len(train) == 3 * 26 * 9
        assert any("Real_World" in path for path in train.paths)
    finally:
        (root / "Real_World").rename(root / "Real World")


def test_lists_that_do_not_fit(root: Path, lists: Path) -> None:
    with (lists / "Clipart_val.txt").open("a") as file:
        file.write("Clipart/Mug/00099.jpg 21\n\n")
    with pytest.raises(ValueError, match=r"Clipart_val\.txt lists 1 missing images, such as"):
        open_domain(root, "Art", "val")
    for path in lists.iterdir():
        path.write_text("")
    with pytest.raises(ValueError, match=r"home: its lists have no image of the classes of val"):
        open_domain(root, "Art", "val")
    (lists / "Clipart_val.txt").unlink()
    with pytest.raises(ValueError, match=r"image_list, but Clipart_val\.txt is missing in it"):
        open_domain(root, "Art", "val")


def test_invalid_arguments_and_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="domains Art, Clipart, Product, Real World; got 'Sketch'"):
        open_domain(root, "Sketch", "train")
    with pytest.raises(ValueError, match="splits train, val, test; got 'query'"):
        open_domain(root, "Art", "query")
    with pytest.raises(
        ValueError, match=r"is not an Office-Home folder: \S+ has no folder Clipart\. "
    ):
        open_domain(tmp_path / "none", "Art", "train")
    (tmp_path / "Art").mkdir()
    with pytest.raises(ValueError, match=r"Art has no folder Drill\. It needs the folders Art, "):
        open_domain(tmp_path, "Art", "test")
    (tmp_path / "Art" / "drill").mkdir()
    with pytest.raises(ValueError, match=r"drill has no images\. It needs"):
        open_domain(tmp_path, "Art", "test")
