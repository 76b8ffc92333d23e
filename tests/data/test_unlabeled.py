"""Images without labels: which files are found, how they are cropped, and shared class names."""

from __future__ import annotations

from pathlib import Path

import folders
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mixplug.data.unlabeled import Unlabeled, fit, plain, shared_classes


def picture(height: int, width: int) -> np.ndarray:
    """Red encodes the row, green the column."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns, np.full_like(rows, 200)], -1).astype(np.uint8)


def test_images_in_all_subfolders_are_found_and_sorted(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPEG", "test/0.jpg", "test/inner/1.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(4, 4)).save(tmp_path / name)
    for name in ("notes.txt", "._b.png", ".hidden/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    images = Unlabeled(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in images.paths]
    assert found == ["a.JPEG", "b.png", "test/0.jpg", "test/inner/1.bmp"] and len(images) == 4
    assert images[1].dtype == torch.uint8
    assert torch.equal(images[1], torch.from_numpy(picture(4, 4)).permute(2, 0, 1))


@pytest.mark.parametrize(("mode", "expected"), [("L", [90, 90, 90]), ("RGBA", [90, 8, 7])])
def test_gray_and_transparent_images_become_rgb(tmp_path: Path, mode: str, expected: list) -> None:
    Image.new(mode, (3, 2), {"L": 90, "RGBA": (90, 8, 7, 128)}[mode]).save(tmp_path / "0.png")
    image = Unlabeled(tmp_path)[0]
    assert image.shape == (3, 2, 3) and image[:, 1, 2].tolist() == expected


@pytest.mark.parametrize(("height", "width", "top", "left"), [(36, 36, 2, 2), (33, 35, 0, 1)])
def test_the_center_is_cropped(height: int, width: int, top: int, left: int) -> None:
    image = torch.from_numpy(picture(height, width)).permute(2, 0, 1)
    found = fit(image, 32, "crop")
    assert found.shape == (3, 32, 32) and found[:2, 0, 0].tolist() == [top, left]
    assert found[:2, -1, -1].tolist() == [top + 31, left + 31]


def test_the_shorter_side_is_resized() -> None:
    """Every fourth column is 200; antialiased to a quarter of the width, all are 50 (else 0)."""
    stripes = torch.zeros(3, 32, 48, dtype=torch.uint8)
    stripes[:, :, ::4] = 200
    found = fit(stripes, 8, "resize")
    assert found.shape == (3, 8, 8) and found.dtype == torch.uint8
    assert (found.int() - 50).abs().max() <= 5
    image = torch.from_numpy(picture(32, 32)).permute(2, 0, 1)
    assert torch.equal(fit(image, 32, "resize"), image)
    large = fit(image[:, :4, :6], 8, "resize")
    assert large.shape == (3, 8, 8) and int(large[1, 0, 0]) >= 1  # 12 wide before the crop


def test_images_of_one_size_make_batches(tmp_path: Path) -> None:
    for number, side in enumerate((32, 36, 40)):
        Image.fromarray(picture(side, side)).save(tmp_path / f"{number}.png")
    (batch,) = DataLoader(Unlabeled(tmp_path, 32, "crop"), 3)
    assert batch.shape == (3, 3, 32, 32) and batch[:, 0, 0, 0].tolist() == [0, 2, 4]


def test_shared_classes_are_found_in_any_spelling(tmp_path: Path) -> None:
    dot = [picture(2, 2)]
    folders.classes(tmp_path, "test", {"alarm-Clock": dot, "Oak_Tree": dot})
    (tmp_path / "bed").mkdir()  # no images
    names = ["oak tree", "bed", "ALARM_CLOCK", "clock"]
    assert shared_classes(names, tmp_path) == ["oak tree", "ALARM_CLOCK"]
    assert shared_classes(names, tmp_path / "test" / "Oak_Tree") == []
    assert plain("Real World") == plain("real_world") == "realworld"


def test_invalid_arguments_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no folder \S+none\."):
        Unlabeled(tmp_path / "none")
    with pytest.raises(ValueError, match=r"has no images \(\.jpg, "):
        Unlabeled(tmp_path)
    with pytest.raises(ValueError, match=r"one of \('crop', 'resize'\), got 'stretch'"):
        Unlabeled(tmp_path, how="stretch")
    Image.fromarray(picture(31, 40)).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match=r"0\.png: an image of 31 x 40 is too small .* of 32 x 32"):
        Unlabeled(tmp_path, 32)[0]
    with pytest.raises(ValueError, match=r"size >= 1, got \(3, 4, 4\) and 0"):
        fit(torch.zeros(3, 4, 4), 0, "crop")
    with pytest.raises(ValueError, match=r"got \(4, 4\) and 2"):
        fit(torch.zeros(4, 4), 2, "crop")
    (tmp_path / "0.png").write_text("no image")
    with pytest.raises(ValueError, match=r"0\.png cannot be read as an image: cannot identify"):
        Unlabeled(tmp_path)[0]
