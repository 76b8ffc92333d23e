"""VOC 2012 in its published layout, written by hand, and errors in other folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import folders
import numpy as np
import pytest
from PIL import Image

from mixplug.data.voc import IMAGES, voc2012


def scene(boxes=((2, 1, 4, 3),)) -> folders.Scene:
    mask = np.zeros((5, 6), np.uint8)
    mask[0:3, 1:4], mask[1, 1], mask[3, 1:4] = 15, 7, 255
    return folders.Scene(np.full((5, 6), 90), mask, boxes)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    boxes = ((2, 1, 4, 3), (1, 1, 6, 5))
    return folders.voc(tmp_path, {"2007_000033": scene(boxes), "2007_000042": scene()})


@pytest.mark.parametrize("place", [".", "..", "../.."])
def test_the_root_may_be_a_parent_folder(home: Path, place: str) -> None:
    found = voc2012(home / place, check=False)
    assert [one.name for one in found] == ["2007_000033", "2007_000042"]


def test_boxes_start_at_zero_and_ends_are_exclusive(home: Path) -> None:
    """Boxes of parts are ignored; difficult objects count."""
    first, second = voc2012(home, check=False)
    assert first.boxes().tolist() == [[1, 0, 4, 3], [0, 0, 6, 5]]
    assert second.boxes().tolist() == [[1, 0, 4, 3]]


@pytest.mark.parametrize("masks", ["SegmentationClass", "SegmentationObject"])
def test_pixels_of_any_object_count_and_void_does_not(tmp_path: Path, masks: str) -> None:
    home = folders.voc(tmp_path, {"a": scene()}, masks)
    (image,) = voc2012(home, check=False)
    objects, void = image.objects()
    assert objects.int().tolist() == [[0, 1, 1, 1, 0, 0]] * 3 + [[0] * 6] * 2
    assert void.int().tolist() == [[0] * 6] * 3 + [[0, 1, 1, 1, 0, 0]] + [[0] * 6]
    assert image.pixels().shape == (3, 5, 6)
    assert int((image.pixels().int() - 90).abs().max()) <= 1


def test_sizes_of_the_official_lists() -> None:
    assert IMAGES["val"] == 1449 and IMAGES["train"] + IMAGES["val"] == IMAGES["trainval"]


def test_another_number_of_images(home: Path) -> None:
    with pytest.raises(ValueError, match=r"val.txt lists 2 images, but .* has 1,449. Unpack"):
        voc2012(home)
    (home / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"lists 0 images"):
        voc2012(home, check=False)


def test_invalid_folders(home: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    wrong = r"empty is not VOC 2012: it has no ImageSets/Segmentation/val.txt. Unpack VOCtrainval"
    with pytest.raises(ValueError, match=wrong):
        voc2012(empty)
    with pytest.raises(ValueError, match=r"has no ImageSets/Segmentation/train.txt"):
        voc2012(home, "train", check=False)
    with pytest.raises(ValueError, match=r"the splits train, val, trainval; got 'test'"):
        voc2012(home, "test")


@pytest.mark.parametrize(
    "file", ["JPEGImages/2007_000042.jpg", "Annotations/2007_000042.xml",
             "SegmentationClass/2007_000042.png"],
)  # fmt: skip
def test_missing_files(home: Path, file: str) -> None:
    (home / file).unlink()
    with pytest.raises(ValueError, match=rf"1 of 6 files listed in val.txt are missing. .* {file}"):
        voc2012(home, check=False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<annotation>", "no element found|unclosed"),
        ("<annotation></annotation>", "has no object"),
        ("<a><object><bndbox><xmin>1</xmin></bndbox></object></a>", "an object has no xmin ymin"),
        ("<a><object><bndbox><xmin>4</xmin><ymin>1</ymin><xmax>3</xmax><ymax>2</ymax></bndbox>"
         "</object></a>", "an empty box, 4 1 3 2"),
        ("<a><object><bndbox><xmin>x</xmin><ymin>1</ymin><xmax>3</xmax><ymax>2</ymax></bndbox>"
         "</object></a>", "could not convert"),
    ],
)  # fmt: skip
def test_damaged_annotations(home: Path, text: str, why: str) -> None:
    (home / "Annotations" / "2007_000033.xml").write_text(text)
    with pytest.raises(ValueError, match=rf"2007_000033.xml .*({why})"):
        voc2012(home, check=False)[0].boxes()


def test_damaged_images_and_masks(home: Path) -> None:
    image = voc2012(home, check=False)[0]
    Image.new("RGB", (6, 5)).save(image.mask)
    with pytest.raises(
        ValueError, match=r"is not a VOC mask: it needs a number per pixel, got mode"
    ):
        image.objects()
    for file in (image.mask, image.image):
        shutil.copy(home / "Annotations" / "2007_000033.xml", file)
    with pytest.raises(ValueError, match=r"2007_000033.png cannot be read as an image"):
        image.objects()
    with pytest.raises(ValueError, match=r"2007_000033.jpg cannot be read"):
        image.pixels()
