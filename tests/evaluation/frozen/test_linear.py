"""A probe on colors that are separable, its steps by hand, and runs that were stopped."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path

import folders
import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms import v2
from typer.testing import CliRunner
from weights.made import timm_vit

from mixplug.cli import app
from mixplug.data.image_folders import Crops, image_folders
from mixplug.data.image_views import as_tensor
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.frozen.linear import CHECKPOINT, Probe, linear
from mixplug.models.vit.encoder import as_encoder

module = sys.modules[linear.__module__]  # its package gives the function under this name

COLORS = {
    "a": (200, 40, 40), "b": (40, 200, 40), "c": (40, 40, 200), "d": (200, 200, 40),
    "e": (40, 200, 200), "f": (200, 40, 200), "g": (230, 230, 230),
}  # fmt: skip
SMALL = {"size": 32, "batch_size": 16, "blocks": 2}


def vit() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm_vit()


@pytest.fixture(scope="module")
def frozen() -> Frozen:
    return Frozen(as_encoder(vit()), "made")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colors")
    for seed, (split, count) in enumerate((("train", 4), ("val", 3))):
        pictures = {
            name: folders.noisy(color, count, 10 * seed + place)
            for place, (name, color) in enumerate(COLORS.items())
        }
        folders.classes(root, split, pictures)
    return root


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / CHECKPOINT, weights_only=True)["head"]


def test_separable_classes_are_told_apart(frozen: Frozen, root: Path, tmp_path: Path) -> None:
    probe = Probe(epochs=6, lr=2.0, **SMALL)
    found = linear(frozen, *image_folders(root), tmp_path, probe, 0)
    assert found["top1"] == found["top5"] == 100
    assert found["epochs"][-1]["loss"] < found["epochs"][0]["loss"] / 10
    assert found["epochs"][-1]["top1"] == 100 and len(found["epochs"]) == 6


def test_steps_by_hand(frozen: Frozen, root: Path, tmp_path: Path) -> None:
    """All images in one step: momentum, decay, the cosine and gradients (p - y) x of all rows."""
    train, val = image_folders(root)
    probe = Probe(epochs=3, lr=0.5, batch_size=64, blocks=2, size=32, weight_decay=0.01, seed=5)
    found = linear(frozen, train, val, tmp_path / "none", probe, 0)

    crops = Crops(train, 32, augment=True, seed=5)
    start = module._Job(frozen, train, val, probe, 0, module.no_progress).head
    assert float(start.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert not start.bias.any()
    w = torch.cat([start.weight, start.bias[:, None]], 1).detach().double()
    speed = torch.zeros_like(w)
    y = torch.nn.functional.one_hot(train.labels, 7).double()
    for epoch in range(3):
        crops.epoch = epoch
        x = frozen.class_tokens(torch.stack([crops[i][0] for i in range(len(train))]), 2).double()
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        p = torch.stack([row.exp() / row.exp().sum() for row in x @ w.T])
        loss = -sum(math.log(float(row[label])) for row, label in zip(p, train.labels, strict=True))
        gradient = sum(torch.outer(p[i] - y[i], x[i]) for i in range(len(x))) / len(x) + 0.01 * w
        speed = 0.9 * speed + gradient
        rate = 0.5 * 64 / 256 * (1 + math.cos(math.pi * epoch / 3)) / 2
        w = w - rate * speed
        assert found["epochs"][epoch]["lr"] == pytest.approx(rate)
        assert found["epochs"][epoch]["loss"] == pytest.approx(loss / len(x), rel=1e-4)
    head = weights(tmp_path / "none")
    assert_close(torch.cat([head["weight"], head["bias"][:, None]], 1).double(), w, rtol=1e-3,
                 atol=1e-5)  # fmt: skip


def test_hits_one_by_one(frozen: Frozen, root: Path, tmp_path: Path) -> None:
    """A probe that has hardly begun: some of the first are right, more of the first five."""
    train, val = image_folders(root)
    found = linear(frozen, train, val, tmp_path, Probe(epochs=1, lr=0.01, seed=2, **SMALL), 0)
    head = weights(tmp_path)
    center = v2.Compose([v2.Resize(37, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)])
    top1 = top5 = 0
    for path, label in zip(val.paths, val.labels.tolist(), strict=True):
        x = frozen.class_tokens(center(as_tensor(Path(path)))[None], 2)[0]
        logits = [float(row @ x + b) for row, b in zip(head["weight"], head["bias"], strict=True)]
        rank = sum(other > logits[label] for other in logits)
        top1, top5 = top1 + (rank < 1), top5 + (rank < 5)
    assert 0 < top1 < top5 < len(val)
    assert found["top1"] == pytest.approx(100 * top1 / len(val))
    assert found["top5"] == pytest.approx(100 * top5 / len(val))


class Stop:
    """Interrupts once, in the middle of an epoch."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, done: int, total: int, what: str) -> None:
        if done > self.at:
            raise KeyboardInterrupt


def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    frozen: Frozen, root: Path, tmp_path: Path
) -> None:
    """In the third epoch; and whatever processes read images."""
    splits, probe = image_folders(root), Probe(epochs=4, lr=0.1, **SMALL)
    whole = linear(frozen, *splits, tmp_path / "whole", probe, 0)
    each = len(splits[0]) + len(splits[1])
    with pytest.raises(KeyboardInterrupt):
        linear(frozen, *splits, tmp_path / "parts", probe, 0, Stop(2 * each + 10))
    saved = torch.load(tmp_path / "parts" / CHECKPOINT, weights_only=True)
    assert len(saved["epochs"]) == 2
    ticks = []
    parts = linear(frozen, *splits, tmp_path / "parts", probe, 1, lambda *told: ticks.append(told))
    assert ticks[0][:2] == (2 * each, 4 * each) and ticks[-1][:2] == (4 * each, 4 * each)
    assert ticks[0][2].startswith("epoch 3 of 4, top-1 ")
    assert parts == whole
    ours, theirs = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert linear(frozen, *splits, tmp_path / "parts", probe, 0, Stop(4 * each)) == whole
    assert [file.name for file in (tmp_path / "parts").iterdir()] == [CHECKPOINT]


def test_a_checkpoint_of_another_training(frozen: Frozen, root: Path, tmp_path: Path) -> None:
    splits, probe = image_folders(root), Probe(epochs=1, **SMALL)
    linear(frozen, *splits, tmp_path, probe, 0)
    with pytest.raises(ValueError, match=r"another training: lr is 0.001 in .* and 0.1 now"):
        linear(frozen, *splits, tmp_path, Probe(epochs=1, lr=0.1, **SMALL), 0)
    other = vit()
    with torch.no_grad():
        other.cls_token.add_(1)
    with pytest.raises(ValueError, match=r"another training: network is \w+ in .* and \w+ now"):
        linear(Frozen(as_encoder(other), ""), *splits, tmp_path, probe, 0)
    torch.save(other.state_dict(), tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match=r"it is not one of a linear probe"):
        linear(frozen, *splits, tmp_path, probe, 0)


def test_a_checkpoint_of_as_many_other_images(frozen: Frozen, root: Path, tmp_path: Path) -> None:
    """Names count, and classes; where the folder lies does not."""
    moved, out = tmp_path / "moved", tmp_path / "out"
    shutil.copytree(root, moved)
    probe = Probe(epochs=1, **SMALL)
    first = linear(frozen, *image_folders(root), out, probe, 0)
    assert linear(frozen, *image_folders(moved), out, probe, 0, Stop(49)) == first
    train, val = image_folders(moved)
    other = dataclasses.replace(train, labels=train.labels.flip(0))
    with pytest.raises(ValueError, match=r"another training: train_list is \w+ in the "):
        linear(frozen, other, val, out, probe, 0)
    file = Path(val.paths[0])
    file.rename(file.with_name(f"other{file.suffix}"))
    with pytest.raises(ValueError, match=r"another training: val_list is \w+ in the "):
        linear(frozen, *image_folders(moved), out, probe, 0)


def test_settings_and_losses_that_are_not_allowed(
    frozen: Frozen, root: Path, tmp_path: Path
) -> None:
    for key, value in {"epochs": 0, "batch_size": 0, "lr": 0.0, "momentum": 1.0, "blocks": 0,
                       "weight_decay": -1.0, "size": 0}.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"needs {key} .*, got {value}"):
            Probe(**{key: value})
    splits = image_folders(root)
    with pytest.raises(ValueError, match=r"loss of epoch 2 is (nan|inf): lower the learning rate"):
        linear(
            frozen, *splits, tmp_path, Probe(epochs=3, lr=1e38, **{**SMALL, "batch_size": 64}), 0
        )
    assert len(torch.load(tmp_path / CHECKPOINT, weights_only=True)["epochs"]) == 1
    said = r"blocks \(option --blocks\) in \[1, 2\], .* got 4"
    with pytest.raises(ValueError, match=said):  # before anything is seen
        linear(frozen, *splits, tmp_path / "b", Probe(epochs=1, size=32), 0, Stop(-1))


def test_the_command(root: Path, tmp_path: Path) -> None:
    torch.save(vit().state_dict(), tmp_path / "vit.pth")
    out = tmp_path / "out"
    arguments = ["eval", "linear", str(root), str(tmp_path / "vit.pth"), "--epochs", "2", "--lr",
                 "0.2", "--batch-size", "16", "--blocks", "2", "--size", "32", "--workers", "0",
                 "--device", "cpu", "--out", str(out)]  # fmt: skip
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    told = json.loads((out / "linear.json").read_text())
    assert f"top-1: {told['top1']:.2f} %" in run.output
    assert f"top-5: {told['top5']:.2f} %" in run.output
    assert told["probe"]["epochs"] == len(told["epochs"]) == 2
    again = CliRunner().invoke(app, arguments)
    assert again.output.splitlines()[-4:] == run.output.splitlines()[-4:]
