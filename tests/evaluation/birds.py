"""CUB200-2011 in miniature: squares in place of birds, whose color is their class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.model import BaseModule
from PIL import Image

from mixplug.registry import MODELS

# Of each class the color, RGB.
COLORS = {"001.Red_Square": (250, 0, 0), "002.Blue_Square": (0, 0, 250)}
# Of each test image: class, left, top, width and height in an image of 64 x 48 pixels.
TEST = (
    ("001.Red_Square", 8, 16, 24, 16),
    ("002.Blue_Square", 32, 8, 24, 32),
    ("001.Red_Square", 40, 24, 16, 16),
    ("002.Blue_Square", 0, 0, 32, 16),
)
WIDTH, HEIGHT = 64, 48


def cub(root: Path, images: Sequence[tuple[str, int, int, int, int]] = TEST) -> Path:
    """``root``/CUB_200_2011; the first two images train too, under other names."""
    home = root / "CUB_200_2011"
    rows: dict[str, list[str]] = {name: [] for name in LISTS}
    trained = [("1", *row) for row in images[:2]]
    for key, (side, name, *box) in enumerate([*trained, *(("0", *row) for row in images)], 1):
        file = f"{name}/{key}.png"
        left, top, width, height = box
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        picture[top : top + height, left : left + width] = COLORS[name]
        (home / "images" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(home / "images" / file)
        number = int(name[:3])
        told = {
            "images.txt": file, "image_class_labels.txt": number, "train_test_split.txt": side,
            "bounding_boxes.txt": " ".join(f"{side:.1f}" for side in box),
        }  # fmt: skip
        for listed, value in told.items():
            rows[listed].append(f"{key} {value}\n")
    for listed, lines in rows.items():
        (home / listed).write_text("".join(lines))
    return home


LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")

# Images are twice as high to the network as on disk.
CONFIG = """
custom_imports = dict(imports=['mixplug.mm'])
default_scope = 'mmpretrain'
data_preprocessor = dict(num_classes=2, mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True)
model = dict(
    type='ImageClassifier', backbone=dict(type='mixplug.Colors'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=3))
test_dataloader = dict(
    batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mixplug.CUBBoxes', data_root={root!r}, split='test', check=False, pipeline=[
            dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 96)),
            dict(type='PackInputs')]))
"""


def weights(bias: tuple[float, float] = (0, 0)) -> dict[str, torch.Tensor]:
    """Of the colors red, green and blue: red is class 0 and blue class 1."""
    return {
        "backbone.scale": torch.ones(1),
        "head.fc.weight": torch.tensor([[40.0, 0.0, -40.0], [-40.0, 0.0, 40.0]]),
        "head.fc.bias": torch.tensor(bias).float(),
    }


@MODELS.register_module(force=True)
class Colors(BaseModule):
    """A backbone whose map is the image, so that what CAM must find is known."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.scale * x,)
