"""ImageNet-style folders, their crops, and invalid folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import folders
import numpy as np
import pytest
import torch

from mixplug.data.image_folders import Crops, Labeled, image_folders, loader


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The shorter side of the images is 8 pixels; colors encode columns and rows."""
    rows, columns = np.mgrid[0:8, 0:12]
    picture = np.stack([20 * columns, 30 * rows, 0 * rows], -1).astype(np.uint8)
    folders.classes(tmp_path, "train", {"n02": [picture, picture + 1], "n01": [picture + 2]})
    folders.classes(tmp_path, "val", {"n01": [picture], "n02": [picture + 3]})
    return tmp_path


def test_classes_are_numbered_by_name(root: Path) -> None:
    train, val = image_folders(root)
    assert list(train.classes) == list(val.classes) == ["n01", "n02"]
    assert train.labels.tolist() == [0, 1, 1] and val.labels.tolist() == [0, 1]
    assert [Path(path).relative_to(root).as_posix() for path in train.paths] == [
        "train/n01/0.png", "train/n02/0.png", "train/n02/1.png",
    ]  # fmt: skip


def test_the_center_is_cropped(root: Path) -> None:
    """A crop of 7 needs a shorter side of 8, so 8 x 12 pixels stay; rows start at 0 or 1."""
    crops = Crops(image_folders(root)[1], 7)
    picture, label = crops[0]
    assert picture.shape == (3, 7, 7) and picture.dtype == torch.uint8 and label == 0
    (top,), (left,) = (
        {int(r) for r in picture[1, 0] // 30},
        {int(c) for c in picture[0, :, 0] // 20},
    )
    assert top in (0, 1) and left in (2, 3)
    assert picture[0].tolist() == [[20 * (left + i) for i in range(7)]] * 7
    assert picture[1].T.tolist() == [[30 * (top + i) for i in range(7)]] * 7


def test_a_crop_depends_on_seed_epoch_and_index_alone(root: Path) -> None:
    crops = Crops(image_folders(root)[0], 8, augment=True, seed=3)
    before = torch.get_rng_state()
    first = [crops[i][0] for i in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert all(torch.equal(crops[i][0], first[i]) for i in (2, 0, 1))
    crops.epoch = 1
    assert not torch.equal(crops[0][0], first[0])
    other = Crops(crops.images, 8, augment=True, seed=4)
    assert not torch.equal(other[0][0], first[0])
    crops.epoch = 0
    batches = list(loader(crops, 2, 1, [2, 0, 1]))
    assert [labels.tolist() for _, labels in batches] == [[1, 0], [1]]
    assert torch.equal(torch.cat([images for images, _ in batches]), torch.stack(first)[[2, 0, 1]])


def test_crops_are_flipped_and_vary_in_size(root: Path) -> None:
    """Half of them are flipped; the share of the image that they show varies."""
    crops, flipped, widths = Crops(image_folders(root)[0], 8, augment=True), 0, []
    for epoch in range(60):
        crops.epoch = epoch
        columns = crops[0][0][0, 0].int()
        flipped += int(columns[0] > columns[-1])
        widths.append(abs(int(columns[0] - columns[-1])) / 20)
    assert 18 <= flipped <= 42
    assert min(widths) < 4 < 8 < max(widths)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: shutil.rmtree(root / "val"), r"there is no \S+val. It needs train/CLASS/"),
        (lambda root: shutil.rmtree(root / "val" / "n01"), r"train has 2 classes and val 1; 1 are "
         r"in only one of them, such as n01"),
        (lambda root: (root / "train" / "n01" / "0.png").unlink(), r"has no images \S.* in "
         r"1 of its 2 class folders, such as n01"),
        (lambda root: [shutil.rmtree(root / "train" / c) for c in ("n01", "n02")],
         r"find any class folder"),
    ],
)  # fmt: skip
def test_invalid_layouts(root: Path, harm, message: str) -> None:
    harm(root)
    with pytest.raises(ValueError, match=message):
        image_folders(root)


def test_a_file_that_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    path.write_text("no image")
    crops = Crops(Labeled([str(path)], torch.tensor([0]), ["n01"]), 8)
    with pytest.raises(ValueError, match=r"0.png cannot be read as an image: cannot identify"):
        crops[0]
