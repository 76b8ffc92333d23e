"""Squares that CAM must find, from a folder in CUB's layout to the numbers that are printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from evaluation import birds as made
from PIL import Image
from typer.testing import CliRunner

from mixplug.cli import app
from mixplug.evaluation.wsol import Batch, localize
from mixplug.from_config.wsol import wsol_of


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "squares.py"
    file.write_text(made.CONFIG.format(root=str(made.cub(tmp_path))))
    return file


def checkpoint(tmp_path: Path, **options: tuple[float, float]) -> Path:
    torch.save({"state_dict": made.weights(**options)}, tmp_path / "colors.pth")
    return tmp_path / "colors.pth"


def run(config: Path, file: Path, **options: object) -> tuple[dict, list]:
    subject = wsol_of(config, file, device="cpu")
    return localize(subject.heat_maps, subject.batches(), subject.total, **options)


def test_cam_finds_the_squares(config: Path, tmp_path: Path) -> None:
    """The edge of a square is in the middle of two pixels, so that at 0.5 its box is exact.

    Other colors than that of the class count against it, so a map is 0 or 1, and in resized rows
    0, 1/4, 3/4 or 1: a row beyond the upper and the lower edge is above 0.15, none above 0.25.
    """
    ticks: list[tuple[int, int, str]] = []
    found, shown = run(config, checkpoint(tmp_path), show=2, tick=lambda *told: ticks.append(told))
    assert [one["right"] for one in found["images"]] == [True] * 4
    for one, (name, left, top, width, height) in zip(found["images"], made.TEST, strict=True):
        first, last = 2 * top - (top > 0), 2 * (top + height) + 1
        assert one["box"] == [left, first, left + width, last]
        assert one["iou"] == pytest.approx(2 * height / (last - first))
        assert one["name"].startswith(f"{name}/")
    names = ("top1", "top1_localization", "gt_known_localization", "max_box_acc", "max_box_acc_v2")
    assert [found[name] for name in names] == [100] * 5
    assert (found["threshold"], found["steps"], found["count"]) == (0.15, 100, 4)
    assert ticks == [(0, 4, "localizing"), (3, 4, "localizing"), (4, 4, "localizing")]
    exact, _ = run(config, checkpoint(tmp_path), threshold=0.5)
    assert [one["iou"] for one in exact["images"]] == [1] * 4
    assert [(one.label, one.predicted) for one in shown] == [(1, 1), (1, 1)]
    assert shown[0].pixels[:, 40, 40].tolist() == [0, 0, 250]  # RGB
    assert shown[0].truths.tolist() == [[32, 16, 56, 80]]


def test_a_wrong_class_is_not_localized(config: Path, tmp_path: Path) -> None:
    """All are said to be red, and the maps of their true classes stay what they were."""
    found, _ = run(config, checkpoint(tmp_path, bias=(100, 0)))
    assert [one["right"] for one in found["images"]] == [True, False, True, False]
    assert found["top1"] == found["top1_localization"] == 50
    assert found["gt_known_localization"] == found["max_box_acc"] == found["max_box_acc_v2"] == 100


def test_maps_of_nothing() -> None:
    def blind(inputs: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(2, 3), torch.zeros(2, 4, 4)

    batch = Batch(
        torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8).byte(), torch.tensor([0, 2]),
        [torch.tensor([[0.0, 0.0, 8.0, 8.0]])] * 2, ["a", "b"],
    )  # fmt: skip
    found, shown = localize(blind, [batch], 2, show=2)
    assert found["top1"] == 50 and found["max_box_acc_v2"] == found["gt_known_localization"] == 0
    assert found["images"][1] == {"name": "b", "right": False, "iou": 0.0, "box": None}
    assert [one.box for one in shown] == [None, None]


def test_the_command(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["eval", "wsol", str(config), str(checkpoint(tmp_path)), "--device", "cpu"]
    arguments += ["--out", str(out), "--show", "3", "--threshold", "0.5"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads((out / "wsol.json").read_text())
    assert "4 images, cam" in done.output
    assert "top-1 localization: 100.00 %" in done.output
    assert f"MaxBoxAccV2: {told['max_box_acc_v2']:.2f} %" in done.output
    assert (told["maps"], told["threshold"], told["config"]) == ("cam", 0.5, "squares.py")
    found, _ = run(config, tmp_path / "colors.pth", threshold=0.5)
    assert {key: told[key] for key in found} == found
    picture = Image.open(out / "wsol.png").convert("RGB")
    reds = sum(n for n, (r, g, b) in picture.getcolors(1 << 24) if (r, g, b) == (230, 0, 31))
    assert reds > 100
    again = CliRunner().invoke(app, [*arguments, "--steps", "7", "--show", "0"])
    assert json.loads((out / "wsol.json").read_text())["steps"] == 7
    assert "png:" not in again.output


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "dict(type='PackInputs')",
            "dict(type='CenterCrop', crop_size=8), dict(type='PackInputs')",
            r"has CenterCrop, which would invalidate the boxes. Allowed are LoadImageFromFile, R",
        ),
        (
            "to_rgb=True",
            "to_rgb=True, pad_size_divisor=50",
            r"pads images of \(96, 64\) to \(100, 100\), which would invalidate",
        ),
        ("test_dataloader", "other_dataloader", r"needs the keys model and test_dataloader"),
        ("'ImageClassifier'", "'ImageClassifers'", r"The model of .*squares.py cannot be built"),
    ],
)
def test_configs_that_do_not_fit(
    config: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        run(config, checkpoint(tmp_path))


def test_data_that_do_not_fit(config: Path, tmp_path: Path) -> None:
    file = checkpoint(tmp_path)
    state = made.weights()
    torch.save({k: v[:1] if "fc" in k else v for k, v in state.items()}, tmp_path / "one.pth")
    one = tmp_path / "one.py"
    one.write_text(config.read_text().replace("num_classes=2, in_ch", "num_classes=1, in_ch"))
    with pytest.raises(ValueError, match=r"The model has 1 classes, but the data have 2"):
        run(one, tmp_path / "one.pth")
    with pytest.raises(ValueError, match=r"1 keys of the model are missing"):
        torch.save({k: v for k, v in state.items() if "bias" not in k}, tmp_path / "less.pth")
        run(config, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=r"There is no checkpoint"):
        run(config, tmp_path / "none.pth")
    plain = config.read_text().replace("'mixplug.CUBBoxes'", "'CUB'").replace("check=False, ", "")
    other = tmp_path / "plain.py"
    other.write_text(plain.replace("num_classes=2, in_ch", "num_classes=200, in_ch"))
    rows = {k: v.repeat(100, *[1] * (v.dim() - 1)) if "fc" in k else v for k, v in state.items()}
    torch.save(rows, tmp_path / "many.pth")
    with pytest.raises(ValueError, match=r"no boxes. Use type='mixplug.CUBBoxes' for CUB"):
        run(other, tmp_path / "many.pth")
    (tmp_path / "CUB_200_2011" / "bounding_boxes.txt").unlink()
    refused = CliRunner().invoke(app, ["eval", "wsol", str(config), str(file), "--subset"])
    assert refused.exit_code == 1
    assert "bounding_boxes.txt is missing. Unpack CUB_200_2011.tgz" in refused.output
    refused = CliRunner().invoke(app, ["eval", "wsol", "no_such_config", str(file)])
    assert refused.exit_code == 1 and "is neither a file nor the name" in refused.output
