"""The demo of DoRA: it learns, is deterministic for a seed, and writes its files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mixplug.cli import app
from mixplug.data.shipped import shipped_clip
from mixplug.demo import dora as job
from mixplug.models.vit import vit_of
from mixplug.video.scan import scan


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "bikes.mp4"
    shutil.copy(shipped_clip("bikes"), path)
    scan(path)
    return path


def test_the_loss_decreases_on_a_real_clip(video: Path) -> None:
    result, method = job.train(video, 120, 0, lambda loss: None)
    rows = {name: (first, last) for name, first, last in result.ends()}
    assert rows["loss"][1] < 0.8 * rows["loss"][0]
    assert rows["teacher_kl"][1] < 0.6 * rows["teacher_kl"][0]
    assert len(result.loss) == 120 == int(method.steps)


def test_the_result_depends_on_the_seed_alone(video: Path) -> None:
    runs = [job.train(video, 3, seed, lambda loss: None)[0].loss for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_the_command_writes_its_files(tmp_path: Path) -> None:
    run = CliRunner().invoke(
        app, ["demo", "dora", "--steps", "2", "--out", str(tmp_path)], env={"COLUMNS": "100"}
    )
    assert run.exit_code == 0, run.output
    for name in ("dora.png", "dora.json", "dora.pth", "tracks.png", "tracks.mp4"):
        assert (tmp_path / name).stat().st_size > 400
        assert name in run.output
    numbers = json.loads((tmp_path / "dora.json").read_text())
    assert len(numbers["loss"]) == 2 and "teacher_entropy" in run.output
    assert re.search(r"overlap by \d+ % without Sinkhorn-Knopp .*, \d+ % with", run.output)
    vit, report = vit_of(tmp_path / "dora.pth", "teacher", heads=6)
    assert report.share == 1
    assert vit(torch.rand(1, 3, 64, 64)).shape == (1, 96)


@pytest.mark.parametrize(
    ("entropy", "message"),
    [
        (5.54, "uniform, so it has collapsed"),
        (0.01, "on one output, so it has collapsed"),
        (2.0, "no collapse"),
    ],
)
def test_a_collapse_is_reported(entropy: float, message: str) -> None:
    assert message in job.collapsed(job.Result([1.0], [entropy], [0.1], [1.0]))
