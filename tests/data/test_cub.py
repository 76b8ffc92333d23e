"""CUB200-2011 in miniature, and all errors in its layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation import birds as made
from evaluation.birds import HEIGHT, LISTS, TEST, WIDTH
from mmengine.registry import DefaultScope

from mixplug.data.cub import birds
from mixplug.data.retrieval import retrieval_set
from mixplug.registry import DATASETS


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return made.cub(tmp_path)


def test_a_split_by_hand(home: Path) -> None:
    found = birds(home, "test", check=False)
    assert found.class_names == ("Red_Square", "Blue_Square")
    assert found.labels.tolist() == [0, 1, 0, 1]
    corners = [[x, y, x + width, y + height] for _, x, y, width, height in TEST]
    assert found.boxes.tolist() == corners
    assert [Path(path).name for path in found.paths] == [f"{i}.png" for i in (3, 4, 5, 6)]
    assert len(birds(home.parent, "train", check=False)) == 2  # the parent folder works too


def test_metric_learning_uses_another_split(home: Path) -> None:
    """It splits by class, so both classes are training classes."""
    assert len(retrieval_set("cub200", home, "train", check=False)) == 6


def test_mm_data_set(home: Path) -> None:
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": (32, 32)},
        {"type": "PackInputs"},
    ]
    kind = {"type": "mixplug.CUBBoxes", "data_root": str(home), "split": "test", "check": False}
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        dataset = DATASETS.build({**kind, "pipeline": pipeline})
    assert dataset.metainfo["classes"] == ("Red_Square", "Blue_Square")
    sample = dataset[1]["data_samples"]
    assert sample.gt_label.tolist() == [1] and dataset.get_cat_ids(1) == [1]
    assert sample.true_boxes.tolist() == [[32, 8, 56, 40]]  # in pixels of the image on disk
    assert sample.ori_shape == (HEIGHT, WIDTH) and sample.img_shape == (32, 32)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_missing(home: Path, name: str) -> None:
    (home / name).unlink()
    with pytest.raises(ValueError, match=rf"CUB: .*{name} is missing. Unpack CUB_200_2011.tgz"):
        birds(home, check=False)


@pytest.mark.parametrize("name", LISTS[2:])
def test_a_list_lacks_an_image(home: Path, name: str) -> None:
    lines = (home / name).read_text().splitlines(keepends=True)
    (home / name).write_text("".join(lines[:-1]))
    with pytest.raises(
        ValueError, match=rf"{name} has no entry for 1 of 6 .* is image 6, 002.Blue"
    ):
        birds(home, check=False)


def test_other_errors(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"splits train, test; got 'val'"):
        birds(home, "val")
    message = r"lists 4 images of 2 classes, but the official split has 5,794"
    with pytest.raises(ValueError, match=message):
        birds(home)
    with pytest.raises(ValueError, match=r"nowhere/images.txt is missing"):
        birds(tmp_path / "nowhere")
    text = (home / "bounding_boxes.txt").read_text()
    (home / "bounding_boxes.txt").write_text(text.replace("3 8.0 16.0 24.0", "3 8.0 16.0 0.0"))
    with pytest.raises(ValueError, match=r"image 3 needs a width and height > 0, got \[0.0, 16.0"):
        birds(home, check=False)
    (home / "bounding_boxes.txt").write_text(text.replace("3 8.0 16.0", "3 8.0"))
    with pytest.raises(ValueError, match=r"bounding_boxes.txt, line 3: expected 5 columns"):
        birds(home, check=False)
    (home / "bounding_boxes.txt").write_text(text)
    (home / "images" / "001.Red_Square" / "3.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 4 images are missing. The first is .*/3.png"):
        birds(home, check=False)


def test_a_box_does_not_follow_an_orientation(tmp_path: Path) -> None:
    """Mmcv turns the image, but the box refers to the pixels on disk."""
    pytest.importorskip("mmpretrain")
    from evaluation.birds import cub
    from PIL import Image

    from mixplug.hosts.mm.datasets.cub import CUBBoxes

    home = cub(tmp_path)
    data = CUBBoxes(str(home), "test", check=False)
    path = data.get_data_info(0)["img_path"]
    assert data[0]["img_path"] == path
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(path) as image:
        image.save(path, exif=exif)
    with pytest.raises(ValueError, match="its EXIF orientation asks to turn or mirror it"):
        data[0]
