"""Cards of timm's networks: its own predictions on its own crops, and classes by their names."""

from __future__ import annotations

import json
from pathlib import Path

import folders
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from typer.testing import CliRunner

from mixplug.cli import app
from mixplug.evaluation.card import Settings
from mixplug.hosts.timm.card import data_of, subject_of

NAME = "test_resnet"  # timm's smallest
PLAIN = Settings(noise=(), parts=("clean",))


def checkpoint(path: Path, classes: int, seed: int = 0) -> torch.nn.Module:
    """As train.py saves it, EMA weights beside others."""
    torch.manual_seed(seed)
    model = timm.create_model(NAME, num_classes=classes).eval()
    other = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    torch.save({"state_dict": other, "state_dict_ema": model.state_dict(), "epoch": 3}, path)
    return model


def data(root: Path, names: list[str], splits: tuple[str, ...] = ("train", "val")) -> Path:
    source = np.random.default_rng(0)
    for split in splits:
        pictures = {
            name: [source.integers(0, 255, (90, 120, 3), np.uint8) for _ in range(3)]
            for name in names
        }
        folders.classes(root, split, pictures)
    return root


def test_predictions_are_timms_own(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "x.pth.tar", 2)
    root = data(tmp_path / "data", ["cat", "dog"])
    subject = subject_of(NAME, tmp_path / "x.pth.tar", "x", "cpu")
    measured = data_of(subject, root, PLAIN)
    images, labels = next(measured.test.batches(6))
    transform = create_transform(**resolve_data_config({}, model=model))
    files = sorted((root / "val").glob("*/*.png"))
    wanted = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    with torch.no_grad():
        torch.testing.assert_close(
            subject(subject.pixels(images)), model(wanted), atol=1e-4, rtol=1e-4
        )
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (subject.facts["weights"], subject.facts["epoch"]) == ("ema", 3)


def test_folders_with_imagenets_names_may_be_some_of_its_classes(tmp_path: Path) -> None:
    checkpoint(tmp_path / "x.pth", 1000)
    subject = subject_of(NAME, tmp_path / "x.pth", "x", "cpu")
    root = data(tmp_path / "data", ["n01440764", "n01484850"], ("val",))
    measured = data_of(subject, root, PLAIN)
    assert [label for _, label in measured.test.dataset] == [0] * 3 + [2] * 3  # tench, great white
    assert len(measured.classes) == 1000
    assert measured.bank is None
    other = data(tmp_path / "other", ["cat", "dog"])
    with pytest.raises(ValueError, match=r"2 classes \(cat, dog, ...\) and x has 1,000"):
        data_of(subject, other, PLAIN)


def test_folders_of_classes_alone_are_test_images(tmp_path: Path) -> None:
    checkpoint(tmp_path / "x.pth", 2)
    subject = subject_of(NAME, tmp_path / "x.pth", "x", "cpu")
    root = data(tmp_path / "data", ["cat", "dog"])
    measured = data_of(subject, root / "val", PLAIN)
    assert (len(measured.test), measured.bank) == (6, None)
    assert len(data_of(subject, root, Settings(noise=())).bank) == 6
    with pytest.raises(ValueError, match="there is no"):
        data_of(subject, tmp_path / "nowhere", PLAIN)


def test_the_command(tmp_path: Path) -> None:
    checkpoint(tmp_path / "x.pth", 2)
    root = data(tmp_path / "data", ["cat", "dog"])
    out = tmp_path / "card"
    arguments = ["eval", "card", f"timm:{NAME}", str(tmp_path / "x.pth"), "--data", str(root)]
    arguments += ["--out", str(out), "--attack", "pgd:eps=1/255,step=1/255,iters=2"]
    parts = [text for one in ("clean", "robustness", "ood") for text in ("--part", one)]
    done = CliRunner().invoke(app, [*arguments, *parts])
    assert done.exit_code == 0, done.output
    found = json.loads((out / "card.json").read_text())
    assert set(found["networks"][0]["results"]) == {"clean", "pgd", "ood"}
    assert found["settings"]["attacks"]["pgd"] == {
        "type": "pgd", "eps": 1 / 255, "step": 1 / 255, "iters": 2, "random_start": False,
    }  # fmt: skip
    assert set(found["networks"][0]["results"]["ood"]["uniform noise"]) >= {"knn", "energy"}


def test_what_can_be_mended_is_said_in_a_line(tmp_path: Path) -> None:
    checkpoint(tmp_path / "x.pth", 2)
    for arguments, text in (
        ([f"timm:{NAME}"], "needs --data, a folder"),
        (["timm:resnet5", "--data", "."], "Nearest: resnet"),
        (["timm:resnet5", str(tmp_path / "x.pth"), "--data", "."], "Nearest: resnet"),
        (["timm:resnet10t", str(tmp_path / "x.pth"), "--data", "."], "x.pth does not fit"),
        (
            [f"timm:{NAME}", str(tmp_path / "x.pth"), "--data", ".", "--device", "cuda:7"],
            "cannot be moved to cuda:7",
        ),
    ):
        done = CliRunner().invoke(app, ["eval", "card", *arguments])
        assert done.exit_code == 1
        assert text in " ".join(done.output.split())
