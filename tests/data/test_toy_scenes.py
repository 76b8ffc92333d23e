"""Toy scenes, read with COCO's own tools."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from mixplug.data.digit_scenes import scenes
from mixplug.data.digits import digits
from mixplug.data.toy_scenes import SEMANTIC_CLASSES, SPLITS, write_scenes

SMALL: dict[str, Any] = {"train": 10, "val": 6, "size": (48, 64), "per_image": (2, 5), "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("toy") / "scenes", **SMALL)


def coco(folder: Path, split: str) -> COCO:
    return COCO(folder / "annotations" / f"instances_{split}.json")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_areas_and_semantic_maps_match_the_masks(folder: Path, split: str) -> None:
    read = coco(folder, split)
    assert len(read.imgs) == SMALL[split] and len(read.anns) >= 2 * SMALL[split] - 1
    for image in read.imgs.values():
        pixels = np.array(Image.open(folder / split / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3) == (48, 64, 3)
        expected = np.zeros((48, 64), dtype=np.uint8)
        for found in read.loadAnns(read.getAnnIds(imgIds=image["id"])):
            mask = read.annToMask(found).astype(bool)
            ys, xs = np.nonzero(mask)
            assert found["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert found["area"] == mask.sum() > 0 and found["iscrowd"] == 0
            assert not expected[mask].any()  # visible parts do not overlap
            name = read.cats[found["category_id"]]["name"]
            expected[mask] = SEMANTIC_CLASSES.index(name)
        stem = Path(image["file_name"]).stem
        semantic = np.array(Image.open(folder / "annotations/semantic" / split / f"{stem}.png"))
        assert semantic.dtype == np.uint8 and (semantic == expected).all()


def test_ids_start_at_one_and_names_are_digits(folder: Path) -> None:
    """pycocotools counts a detection that matches annotation 0 as one without a match."""
    read = coco(folder, "train")
    assert sorted(read.anns) == list(range(1, len(read.anns) + 1))
    assert [(k, c["name"]) for k, c in read.cats.items()] == [(1 + k, str(k)) for k in range(10)]


@pytest.mark.parametrize("split", SPLITS)
def test_classes_match_the_scans(folder: Path, split: str) -> None:
    _, classes = digits({"train": "train", "val": "test"}[split], 8)
    for found in coco(folder, split).anns.values():
        assert found["category_id"] == 1 + classes[found["scan"]]


def test_splits_share_no_scan_and_no_picture(folder: Path) -> None:
    """Scans are compared by their pixels, because their numbers start at 0 in each split."""
    scans, pictures = {}, {}
    for split, source in (("train", "train"), ("val", "test")):
        read, inks = coco(folder, split), digits(source, 8)[0]
        scans[split] = {inks[found["scan"]].numpy().tobytes() for found in read.anns.values()}
        pictures[split] = {image["background"] for image in read.imgs.values()}
    assert not scans["train"] & scans["val"] and not pictures["train"] & pictures["val"]


def test_the_street_is_split_at_its_cut() -> None:
    seconds: dict[str, set[float]] = {}
    for split in SPLITS:
        names = {scene.background for scene in scenes(split, 100, (32, 32), 0, 1, (1, 1))}
        street = {name for name in names if name.startswith("bikes")}
        assert names - street == {{"train": "china.jpg", "val": "flower.jpg"}[split]}
        seconds[split] = {float(name.split()[1]) for name in street}
    assert max(seconds["train"]) < 7.48 <= min(seconds["val"]) < 8 and min(seconds["train"]) < 1


def test_later_digits_hide_at_most_30_percent_of_earlier_ones() -> None:
    """A scene with fewer digits is equal to the scene before the other digits were pasted."""
    occluded = 0
    for count in (1, 2, 3):
        before = list(scenes("train", 12, (48, 48), 5, 10, (count, count)))
        after = list(scenes("train", 12, (48, 48), 5, 10, (count + 1, count + 1)))
        for first, second in zip(before, after, strict=True):
            assert second.scans[:count] == first.scans
            whole = [int((first.owner == k).sum()) for k in range(count)]
            visible = [int((second.owner == k).sum()) for k in range(count)]
            last = count - 1  # the only digit that was fully visible before
            assert 0.7 * whole[last] <= visible[last] <= whole[last]
            occluded += visible[last] < whole[last]
            assert (
                (second.owner[first.owner < 0] == -1)
                .logical_or(second.owner[first.owner < 0] == count)
                .all()
            )
    assert occluded > 3  # otherwise the test would check nothing


def test_pixels_without_a_digit_are_unchanged() -> None:
    for few, many in zip(
        scenes("val", 8, (40, 56), 1, 10, (1, 1)),
        scenes("val", 8, (40, 56), 1, 10, (3, 3)),
        strict=True,
    ):
        assert few.background == many.background
        same = many.owner <= 0
        same &= few.owner == many.owner
        assert (few.image[same] == many.image[same]).all() and same.float().mean() > 0.3


def test_digits_have_another_color_than_their_background() -> None:
    """Distance in RGB to the pixels next to them; for a random color it is often below 100."""
    near = []
    for scene in scenes("train", 40, (48, 48), 0, 10, (1, 1)):
        mask = scene.owner == 0
        wide = torch.nn.functional.max_pool2d(mask[None].float(), 5, 1, 2)[0].bool()
        inside, beside = (scene.image[part].float().mean(0) for part in (mask, wide & ~mask))
        near.append((inside - beside).norm())
    assert torch.stack(near).min() > 100


def test_a_scene_depends_on_seed_split_and_number_alone() -> None:
    few, more = (list(scenes("train", n, (32, 32), 7)) for n in (2, 4))
    for a, b in zip(few, more, strict=False):
        assert torch.equal(a.image, b.image) and torch.equal(a.owner, b.owner)
    other = next(scenes("train", 1, (32, 32), 8))
    assert not torch.equal(other.image, few[0].image)
    assert not torch.equal(few[0].image, few[1].image)


def test_fewer_classes_and_digits_in_a_scene() -> None:
    found = list(scenes("train", 20, (64, 64), 0, 3, (1, 2)))
    assert {k for scene in found for k in scene.classes} == {0, 1, 2}
    assert {len(scene.classes) for scene in found} == {1, 2}


def test_files_depend_on_the_settings_and_a_complete_folder_is_not_changed(
    folder: Path, tmp_path: Path
) -> None:
    ticks: list[int] = []
    again = write_scenes(tmp_path / "again", **SMALL, tick=ticks.append)
    assert digests(again) == digests(folder) and sum(ticks) == 16
    times = {file: file.stat().st_mtime_ns for file in again.rglob("*")}
    write_scenes(again, **SMALL, tick=ticks.append)
    assert {file: file.stat().st_mtime_ns for file in again.rglob("*")} == times
    assert sum(ticks) == 32


def test_an_incomplete_folder_is_completed(folder: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: int) -> None:
        if len(list((tmp_path / "train").glob("*.jpg"))) == 4:
            raise Stop

    with pytest.raises(Stop):
        write_scenes(tmp_path, **SMALL, tick=stop)
    assert not (tmp_path / "annotations" / "instances_train.json").exists()
    write_scenes(tmp_path, **SMALL)
    assert digests(tmp_path) == digests(folder)
    (tmp_path / "val" / "00002.jpg").unlink()
    write_scenes(tmp_path, **SMALL)
    assert digests(tmp_path) == digests(folder)


def test_a_folder_with_other_data_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scenes with other settings: .*'seed': 4.*'seed': 3"):
        write_scenes(folder, **{**SMALL, "seed": 4})
    (tmp_path / "annotations").mkdir()
    with pytest.raises(ValueError, match="has annotations of another data set"):
        write_scenes(tmp_path, **SMALL)
    assert not (tmp_path / "scenes.json").exists()
    assert json.loads((folder / "scenes.json").read_text())["seed"] == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"val": 0}, "Toy scenes need train and val >= 1, got (10, 0)."),
        ({"size": (64, 31)}, "Toy scenes need size = (height, width) >= 32, got (64, 31)."),
        ({"digits": 11}, "Toy scenes need digits in 1 to 10, got 11."),
        (
            {"per_image": (3, 2)},
            "Toy scenes need per_image = (least, most), 1 <= least <= most, got (3, 2).",
        ),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        write_scenes(tmp_path / "scenes", **{**SMALL, **wrong})
    assert not (tmp_path / "scenes").exists()
