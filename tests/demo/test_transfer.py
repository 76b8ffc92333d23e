"""The demo of transfer: it runs from the DoRA demo's checkpoint and writes its files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from typer.testing import CliRunner

from mixplug.cli import app
from mixplug.demo import dora
from mixplug.models.self_distillation import DoRA


def test_it_needs_a_checkpoint(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["demo", "transfer", "--out", str(tmp_path)])
    assert run.exit_code == 1
    assert "dora.pth. To create one, run: mixplug demo dora" in run.output


def test_the_command_writes_its_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = DoRA(
        {"name": "vit_tiny_patch16_224", **dora.SIZE},
        head={"out_dim": 16, "hidden": 8, "bottleneck": 4},
    )
    torch.save({"state_dict": method.state_dict()}, tmp_path / "dora.pth")
    arguments = ["--scenes", "16", "--epochs", "1", "--steps", "2", "--out", str(tmp_path)]
    run = CliRunner().invoke(app, ["demo", "transfer", *arguments], env={"COLUMNS": "100"})
    assert run.exit_code == 0, run.output
    assert "DoRA: 40 of 40 tensors (100.00 % of" in run.output
    for row in ("box mAP", "mask mAP", "mIoU"):
        assert re.search(rf"{row} +\d+\.\d +\d+\.\d", run.output), run.output
    rows = json.loads((tmp_path / "transfer.json").read_text())
    assert [row["weights"] for row in rows] == ["DoRA", "random"]
    assert rows[0]["scores"]["mIoU"] != rows[1]["scores"]["mIoU"]
    assert (tmp_path / "transfer.png").stat().st_size > 10_000
    weights = {}
    for row in rows:  # fine-tuning started from the stated weights
        path = tmp_path / "transfer" / f"segmentation-{row['weights']}" / "iter_2.pth"
        weights[row["weights"]] = torch.load(path, weights_only=False)["state_dict"]
    name = "blocks.0.mlp.fc1.weight"
    teacher = method.teacher.backbone.state_dict()[name]
    far = {k: (v[f"backbone.model.{name}"] - teacher).abs().max() for k, v in weights.items()}
    assert far["DoRA"] < 0.01 < far["random"]
