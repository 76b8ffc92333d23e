"""Neighbors that are known: copies of the images that are asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import folders
import pytest
import torch
from torch import nn
from typer.testing import CliRunner
from weights.made import timm_vit

from mixplug.cli import app
from mixplug.data.image_folders import image_folders
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.frozen.knn import knn
from mixplug.models.vit.encoder import as_encoder

module = sys.modules[knn.__module__]  # its package gives the function under this name

COLORS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}
SETTINGS = {"size": 32, "batch_size": 4, "workers": 0}


@pytest.fixture(scope="module")
def frozen() -> Frozen:
    torch.manual_seed(0)
    return Frozen(as_encoder(timm_vit()), "made")


def images(seed: int, count: int = 3) -> dict[str, list]:
    return {
        name: folders.noisy(color, count, seed + place)
        for place, (name, color) in enumerate(COLORS.items())
    }


def test_copies_are_found(frozen: Frozen, tmp_path: Path) -> None:
    folders.classes(tmp_path, "train", images(0))
    folders.classes(tmp_path, "val", images(0))
    found = knn(frozen, *image_folders(tmp_path), [1], **SETTINGS)
    assert found["knn@1"] == 100
    assert (found["classes"], found["train_images"], found["val_images"]) == (3, 9, 9)


def test_copies_with_other_labels(frozen: Frozen, tmp_path: Path) -> None:
    """One class in three is named as in train."""
    train = images(0)
    swapped = {"blue": train["green"], "green": train["blue"], "red": train["red"]}
    folders.classes(tmp_path, "train", train)
    folders.classes(tmp_path, "val", swapped)
    found = knn(frozen, *image_folders(tmp_path), [1], **SETTINGS)
    assert found["knn@1"] == pytest.approx(100 / 3)


class Colors:
    """An encoder whose class token is the mean color, as it was before it was normalized."""

    depth, width = 1, 3

    def __init__(self) -> None:
        self.backbone = nn.Linear(1, 1)

    def cls(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def test_votes_by_hand(tmp_path: Path, monkeypatch) -> None:
    """The query is nearest to one image of class a, less near to two of class b.

    Cosines with (1, 0, 0) are 1 for a, and 3/5 for b, (3, 4, 0). Two votes of e^(0.6 / τ) against
    one of e^(1 / τ): at τ = 0.07 a is ahead by e^5.7 to 2, at τ = 1 b is by 2 to e^0.4 = 1.5. The
    other query, of class b, is (4, 3, 0): 0.8 against 0.96, of which b is ahead at both.
    """
    mean = 100
    a = [folders.noisy((mean + 100, mean, mean), 1, 0)[0] * 0 + [mean + 100, mean, mean]]
    b = [folders.noisy((mean, mean, mean), 1, 0)[0] * 0 + [mean + 60, mean + 80, mean]] * 2
    query = a[0] * 0 + [mean + 80, mean + 60, mean]
    as_bytes = [[p.astype("uint8") for p in group] for group in (a, b, [query])]
    folders.classes(tmp_path, "train", {"a": as_bytes[0], "b": as_bytes[1]})
    folders.classes(tmp_path, "val", {"a": as_bytes[0], "b": as_bytes[2]})
    frozen = Frozen(Colors(), "", (mean,) * 3, (1.0,) * 3)
    splits = image_folders(tmp_path)
    assert knn(frozen, *splits, [3], 0.07, **SETTINGS)["knn@3"] == 100
    found = knn(frozen, *splits, [3, 1], 1.0, **SETTINGS)
    assert found["knn@3"] == 50 and found["knn@1"] == 100
    monkeypatch.setattr(module, "_QUERIES", 1)
    assert knn(frozen, *splits, [3, 1], 1.0, **SETTINGS) == found


def test_progress_counts_the_images_of_both(frozen: Frozen, tmp_path: Path) -> None:
    folders.classes(tmp_path, "train", images(0))
    folders.classes(tmp_path, "val", images(5, 1))
    ticks = []
    knn(frozen, *image_folders(tmp_path), [1], tick=lambda *t: ticks.append(t), **SETTINGS)
    assert [(done, total) for done, total, _ in ticks] == [
        (0, 12), (4, 12), (8, 12), (9, 12), (9, 12), (12, 12),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ks", "temperature", "message"),
    [
        ([10], 0.07, r"k in \[1, 9\], the number of training images, got \[10\]"),
        ([0, 2], 0.07, r"got \[0, 2\]"),
        ([], 0.07, r"got \[\]"),
        ([1], 0.0, r"temperature > 0 or None, got 0.0"),
    ],
)
def test_bad_settings(frozen: Frozen, tmp_path: Path, ks, temperature, message: str) -> None:
    for split in ("train", "val"):
        folders.classes(tmp_path, split, images(0))
    with pytest.raises(ValueError, match=message):
        knn(frozen, *image_folders(tmp_path), ks, temperature, **SETTINGS)


def test_the_command(tmp_path: Path) -> None:
    torch.save(timm_vit().state_dict(), tmp_path / "vit.pth")
    for split in ("train", "val"):
        folders.classes(tmp_path, split, images(0))
    out = tmp_path / "out"
    arguments = ["eval", "knn", str(tmp_path), str(tmp_path / "vit.pth"), "-k", "1", "-k", "2"]
    arguments += ["--size", "32", "--workers", "0", "--device", "cpu", "--out", str(out)]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    told = json.loads((out / "knn.json").read_text())
    assert told["knn@1"] == 100 and "knn@1: 100.00 %" in run.output
    assert f"knn@2: {told['knn@2']:.2f} %" in run.output and "knn@20" not in told
    wrong = CliRunner().invoke(app, [*arguments[:2], str(out), *arguments[3:]])
    assert wrong.exit_code == 1 and "does not have the layout of ImageNet" in wrong.output
