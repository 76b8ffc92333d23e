"""Jaccard similarity and CorLoc of images whose answers are worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import folders
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner
from weights.made import timm_vit

from mixplug.cli import app
from mixplug.data.voc import voc2012
from mixplug.evaluation.frozen.discovery import discover
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.models.vit.encoder_base import Tokens

BLACK, WHITE = 20, 235
PATCH = 8


class Bright:
    """An encoder whose class token attends to bright patches, and whose keys tell them apart.

    Keys are +1 where a patch of the normalized image is bright, else -1; queries are 10. Two heads
    of which one is blind: the mean over both still has its mass where it is bright.
    """

    patch, prefix, depth = (PATCH, PATCH), 2, 1

    def __init__(self) -> None:
        self.backbone = nn.Linear(1, 1)
        self.sizes: list[tuple[int, ...]] = []

    def tokens(self, images: Tensor) -> Tokens:
        self.sizes.append(tuple(images.shape[-2:]))
        means = nn.functional.avg_pool2d(images.mean(1, keepdim=True), PATCH)
        bright = (means > 0).float() * 2 - 1
        keys = bright.flatten()[None, None, :, None]
        keys = torch.cat([torch.full((1, 1, self.prefix, 1), -1.0), keys], 2)
        keys = torch.cat([keys, torch.zeros_like(keys)], 1).repeat(1, 1, 1, 2)
        queries = torch.full_like(keys, 10)
        nothing = torch.zeros(1, 1)
        return Tokens(nothing, nothing, queries, keys, self.prefix, tuple(means.shape[-2:]))


class Seeing(Bright):
    """The same without the blind head."""

    def tokens(self, images: Tensor) -> Tokens:
        t = super().tokens(images)
        return Tokens(t.cls, t.patches, t.queries[:, :1], t.keys[:, :1], t.prefix, t.grid)


def scene(box, height: int = 32, width: int = 48) -> folders.Scene:
    """White where columns 8 to 23 and rows 8 to 23 are; true are rows 8 to 15, void 16 to 19."""
    levels, mask = np.full((height, width), BLACK), np.zeros((height, width), int)
    levels[8:24, 8:24] = WHITE
    mask[8:12, 8:24], mask[12:16, 8:24], mask[16:20, 8:24] = 3, 15, 255
    return folders.Scene(levels, mask, [box])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Boxes of 16 x 8 and 15 x 8 pixels in a square of 16 x 16, in pixels that count from 1."""
    return folders.voc(tmp_path, {"half": scene((9, 9, 24, 16)), "less": scene((9, 9, 23, 16))})


@pytest.mark.parametrize("boxes", ["attention", "lost"])
def test_by_hand(home: Path, boxes: str) -> None:
    """J: 128 of 256 pixels, of which 64 are void. Boxes overlap by 128 / 256 and 120 / 256."""
    found = discover(Frozen(Seeing(), ""), voc2012(home, check=False), boxes)
    assert found["jaccard"] == pytest.approx(100 * 128 / 192)
    assert found["corloc"] == 50
    assert [one["iou"] for one in found["images"]] == [0.5, 120 / 256]
    assert [one["box"] for one in found["images"]] == [[8, 8, 24, 24]] * 2
    assert [one["name"] for one in found["images"]] == ["half", "less"]


def test_heads_are_averaged(home: Path) -> None:
    """Half of all is what the blind head has, spread over 24 patches and 2 other tokens.

    Of 1/2 + 24/52 on patches, the four bright ones have 1/2 + 4/52, which is 0.6 of it, and each
    other one 0.02. At 0.79 the first ten are kept too: row 0, and row 1 as far as it is dark.
    """
    images, frozen = voc2012(home, check=False), Frozen(Bright(), "")
    assert discover(frozen, images, mass=0.59)["images"][0]["box"] == [8, 8, 24, 24]
    assert discover(frozen, images, mass=0.79)["images"][0]["box"] == [0, 0, 48, 24]


def test_of_two_components_the_box_is_of_the_larger(tmp_path: Path) -> None:
    """The mask has both. With a patch of void only, the smaller one counts in neither."""
    image = scene((9, 9, 24, 24))
    image.levels[0:8, 40:48] = WHITE
    image.mask[8:24, 8:24] = 1
    home = folders.voc(tmp_path, {"two": image})
    found = discover(Frozen(Seeing(), ""), voc2012(home, check=False), mass=0.9)
    assert found["corloc"] == 100 and found["images"][0]["iou"] == 1
    assert found["jaccard"] == pytest.approx(100 * 256 / (256 + 64))
    image.mask[0:8, 40:48] = 255
    home = folders.voc(tmp_path, {"two": image})
    assert discover(Frozen(Seeing(), ""), voc2012(home, check=False), mass=0.9)["jaccard"] == 100


def test_sizes_that_are_no_multiple_of_the_patch(tmp_path: Path) -> None:
    """33 x 50 pixels are seen as 32 x 48; the box is told in pixels of the image."""
    home = folders.voc(tmp_path, {"odd": scene((9, 9, 24, 24), 33, 50)})
    encoder = Seeing()
    found = discover(Frozen(encoder, ""), voc2012(home, check=False))
    assert encoder.sizes == [(32, 48)]
    assert found["images"][0]["box"] == pytest.approx([50 / 6, 33 / 4, 150 / 6, 99 / 4])
    discover(Frozen(encoder, ""), voc2012(home, check=False), size=64)
    assert encoder.sizes[1] == (64, 96)  # 96.97 is nearer to 96 than to 104
    discover(Frozen(encoder, ""), voc2012(home, check=False), size=2)
    assert encoder.sizes[2] == (8, 8)


def test_pictures_show_the_mask_and_both_boxes(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    ticks = []
    discover(
        Frozen(Seeing(), ""), voc2012(home, check=False), save=1, out=out,
        tick=lambda *told: ticks.append(told),
    )  # fmt: skip
    assert [file.name for file in out.iterdir()] == ["half.png"]
    assert ticks == [(i, 2, "discovering") for i in range(3)]
    picture = np.asarray(Image.open(out / "half.png")).astype(int)
    assert picture.shape == (32, 48, 3)
    assert picture[23, 12].tolist() == [255, 0, 0]  # lower side of the predicted box
    assert picture[13, 15].tolist() == [0, 200, 0]  # of the true one, three pixels wide
    red, green, _ = picture[18, 15]
    assert red > green + 80  # in the mask
    assert abs(picture[28, 40] - BLACK).max() <= 2  # outside


def test_bad_settings(home: Path) -> None:
    images = voc2012(home, check=False)
    with pytest.raises(ValueError, match=r"boxes in \('attention', 'lost'\), got 'best'"):
        discover(Frozen(Seeing(), ""), images, "best")
    with pytest.raises(ValueError, match="needs images, and a folder"):
        discover(Frozen(Seeing(), ""), [])
    with pytest.raises(ValueError, match="a folder to save them in, got None"):
        discover(Frozen(Seeing(), ""), images, save=1)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(images[0].mask)
    with pytest.raises(ValueError, match=r"half.png has \(5, 5\) pixels, .* has \(32, 48"):
        discover(Frozen(Seeing(), ""), images)


def test_the_command(home: Path, tmp_path: Path) -> None:
    torch.save(timm_vit().state_dict(), tmp_path / "vit.pth")
    out = tmp_path / "out"
    arguments = ["eval", "discovery", str(home), str(tmp_path / "vit.pth"), "--out", str(out)]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1
    assert "lists 2 images, but the official split has 1,449" in refused.output
    assert "pass --subset" in refused.output
    arguments += ["--subset", "--boxes", "lost", "--size", "64", "--save", "1", "--device", "cpu"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    told = json.loads((out / "discovery-lost.json").read_text())
    assert f"Jaccard: {told['jaccard']:.2f} %" in run.output
    assert f"CorLoc: {told['corloc']:.2f} %" in run.output
    assert (told["boxes"], told["mass"], told["size"]) == ("lost", 0.8, 64)
    assert [file.name for file in (out / "pictures-lost").iterdir()] == ["half.png"]
    frozen = Frozen.of(tmp_path / "vit.pth", device="cpu")
    again = discover(frozen, voc2012(home, check=False), "lost", size=64)
    assert told == {"network": frozen.source, **again}
    arguments[arguments.index("lost")] = "attention"
    run = CliRunner().invoke(app, arguments)  # neither result is lost
    assert f"json: {out / 'discovery-attention.json'}" in run.output
    assert json.loads((out / "discovery-lost.json").read_text()) == told
