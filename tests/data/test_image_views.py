"""Views of images: clips of one frame, from folders and from data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import ImageFolder

from mixplug import sampling
from mixplug.data.clip_samplers import ClipSampler, generators
from mixplug.data.image_views import ImageViews, as_tensor

VIEWS = {"large": 8, "small": 6, "smalls": 2}


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (5, 3, 20, 30), dtype=torch.uint8)


@pytest.fixture
def folder(tmp_path: Path, pixels: Tensor) -> Path:
    for number, image in enumerate(pixels):
        path = tmp_path / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "class0" / ".hidden.png").write_text("no image")
    return tmp_path


ORDER = [0, 2, 4, 1, 3]  # of the images in the folder's two folders


def test_items_are_the_views_of_their_image(folder: Path, pixels: Tensor) -> None:
    data = ImageViews(folder, VIEWS, seed=3)
    assert len(data) == 5
    for epoch, index in ((0, 0), (0, 4), (7, 2)):
        item = data[5 * epoch + index]
        key = sampling.key(generators(3, epoch, index).local)
        expected = data.views(pixels[ORDER[index]][None], key)
        assert item["large"].shape == (2, 1, 3, 8, 8) and item["small"].shape == (2, 1, 3, 6, 6)
        assert all(torch.equal(item[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["torchvision", "tensors", "arrays", "pil", "labeled tensors"])
def test_a_data_set_gives_the_same_views_as_a_folder(
    folder: Path, pixels: Tensor, kind: str
) -> None:
    """Labels are ignored."""
    ordered = pixels[ORDER]
    arrays = [image.permute(1, 2, 0).numpy() for image in ordered]
    data = {
        "torchvision": lambda: ImageFolder(str(folder), is_valid_file=lambda p: "hidden" not in p),
        "tensors": lambda: list(ordered),
        "arrays": lambda: arrays,
        "pil": lambda: [Image.fromarray(array) for array in arrays],
        "labeled tensors": lambda: TensorDataset(ordered, torch.arange(5)),
    }[kind]()
    own, of_folder = ImageViews(data, VIEWS), ImageViews(folder, VIEWS)
    for key in (0, 3, 11):
        assert torch.equal(own[key]["large"], of_folder[key]["large"])


def test_gray_images_become_rgb(tmp_path: Path) -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = torch.from_numpy(gray).expand(3, -1, -1)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    for image in (Image.fromarray(gray), gray[..., None], torch.from_numpy(gray)[None]):
        assert torch.equal(as_tensor(image), expected)
    assert torch.equal(as_tensor(tmp_path / "gray.png"), expected)


def test_workers_and_epochs(folder: Path) -> None:
    data = ImageViews(folder, VIEWS)
    sampler = ClipSampler(data, 2)
    loader = DataLoader(data, 5, sampler=sampler, num_workers=2, persistent_workers=True)
    batches = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        (batch,) = loader
        batches.append(batch["large"])
        assert torch.equal(batch["large"], torch.stack([data[key]["large"] for key in sampler]))
    assert batches[0].shape == (5, 2, 1, 3, 8, 8)
    assert not torch.equal(*batches)
    assert len(list(data)) == 5


def test_views_depend_on_the_seed_but_not_on_the_global_generator(folder: Path) -> None:
    first = ImageViews(folder, VIEWS, seed=1)[2]["large"]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(ImageViews(folder, VIEWS, seed=1)[2]["large"], first)
    assert not torch.equal(ImageViews(folder, VIEWS, seed=2)[2]["large"], first)
    assert torch.equal(torch.get_rng_state(), state)


def test_invalid_arguments(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    for images, text in (
        (tmp_path / "none", r"There is no folder of images \S+none\."),
        (tmp_path / "empty", r"empty has no images \(\.jpg,"),
        ([], "ImageViews needs at least one image, got 0"),
    ):
        with pytest.raises(ValueError, match=text):
            ImageViews(images)
    with pytest.raises(IndexError, match=r"Keys are epoch \* 5 \+ index >= 0, got -2\."):
        ImageViews(folder)[-2]
    with pytest.raises(KeyError, match="MultiCrop has no key 'size'"):
        ImageViews(folder, {"size": 3})
    for item, text in (
        (torch.zeros(3, 4, 4), r"got \(3, 4, 4\) of torch.float32"),
        (np.zeros((3, 4, 2), np.uint8), r"got \(3, 4, 2\) of uint8"),
        ("image.png", "got str"),
    ):
        with pytest.raises(ValueError, match=rf"An image must be a PIL image, .*{text}\."):
            ImageViews([item])[0]
