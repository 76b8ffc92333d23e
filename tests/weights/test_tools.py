"""``mixplug train`` and ``mixplug test`` check every file that the tool will read."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from torch import nn
from typer.testing import CliRunner
from weights import made

from mixplug.cli import app, tools
from mixplug.cli.checkpoints import safe_loading
from mixplug.weights.read import check_no_code, could_be_torch

CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, init_cfg={init_cfg}),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=512))
train_dataloader = dict(dataset=dict(ann_file='{annotations}'))
{more}
"""


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch {folder / 'ran'}"

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def evil(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {"a": Evil(path.parents[0])}}, path)
    return path


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """Records the calls of the tools; runs in a folder of its own."""
    calls: list[object] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tools.runpy, "run_path", lambda *path, **_: calls.append(path))
    monkeypatch.setattr(sys, "argv", ["mixplug"])
    return calls


def config(init_cfg: Any = None, more: str = "", annotations: str = "") -> str:
    text = CONFIG.format(init_cfg=init_cfg, more=more, annotations=annotations)
    Path("c.py").write_text(text)
    return "c.py"


def invoke(*arguments: str) -> Any:
    run = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "400"})
    assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
    return run


def error_of(run: Any) -> str:
    """The one line of an error."""
    assert run.exit_code == 1, run.output
    (line,) = [line for line in run.output.splitlines() if line.startswith("mixplug: error: ")]
    return line.removeprefix("mixplug: error: ")


WAYS: dict[str, Callable[[Path], list[str]]] = {
    "an argument of test": lambda f: ["test", config(), str(f)],
    "an argument of test in the home": lambda f: ["test", config(), f"~/{f.name}"],
    "load_from of an argument": lambda f: ["train", config(), "--cfg-options", f"load_from={f}"],
    "load_from": lambda f: ["train", config(more=f"load_from = '{f}'")],
    "load_from in the home": lambda f: ["train", config(more=f"load_from = '~/{f.name}'")],
    "resumed": lambda f: ["train", config(), "--resume", str(f)],
    "resumed with =": lambda f: ["train", config(), f"--resume={f}"],
    "resumed in the config": lambda f: ["train", config(more=f"resume = True\nload_from = '{f}'")],
    "an init_cfg": lambda f: ["train", config({"type": "Pretrained", "checkpoint": str(f)})],
    "an init_cfg of ours": lambda f: [
        "train", config({"type": "mixplug.Pretrained", "checkpoint": str(f)})
    ],
    "a list of init_cfg": lambda f: [
        "train", config([{"type": "Kaiming"}, {"type": "Pretrained", "checkpoint": str(f)}])
    ],
    "an init_cfg of an argument": lambda f: [
        "train", config({"type": "Pretrained"}), "--cfg-options",
        f"model.backbone.init_cfg.checkpoint={f}",
    ],
    "a teacher": lambda f: ["test", config(more=f"model['teacher_ckpt'] = '{f}'"), "ok.pth"],
    "a hook": lambda f: ["train", config(more=f"custom_hooks = [dict(checkpoint='{f}')]")],
}  # fmt: skip


@pytest.mark.parametrize("name", ["evil.pth", "evil", "evil.log", "evil.safetensors"])
@pytest.mark.parametrize("way", WAYS)
def test_code_is_refused_wherever_the_file_is_named(
    way: str, name: str, ran: list[object], tmp_path: Path
) -> None:
    torch.save({}, "ok.pth")
    file = evil(tmp_path / name)
    line = error_of(invoke(*WAYS[way](file)))
    assert line.startswith(f"{file} is not a checkpoint of weights: "), line
    if not name.endswith(".safetensors"):
        assert line.endswith(f"it contains {os.name}.system, which is neither loaded nor run.")
    assert not ran and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("where", ["--work-dir", "config", "--cfg-options", "default"])
def test_the_last_checkpoint_is_checked(where: str, ran: list[object], tmp_path: Path) -> None:
    folder = Path("work_dirs/c" if where == "default" else "out")
    file = evil(tmp_path / "weights" / "epoch_1.pth")
    folder.mkdir(parents=True)
    (folder / "last_checkpoint").write_text(f"{file}\n")
    more = "work_dir = 'out'" if where == "config" else ""
    options = {
        "--work-dir": ["--work-dir", "out"],
        "--cfg-options": ["--cfg-options", "work_dir=out"],
    }
    line = error_of(invoke("train", config(more=more), "--resume", *options.get(where, [])))
    assert line.startswith(f"{file} is not a checkpoint of weights: it contains") and not ran
    assert not (file.parent / "ran").exists()
    assert (
        invoke("train", config(more=more), *options.get(where, [])).exit_code == 0
    )  # without --resume
    assert len(ran) == 1
    file.unlink()
    line = error_of(invoke("train", config(more=more), "--resume", *options.get(where, [])))
    assert line == f"There is no checkpoint {file} (given by {folder / 'last_checkpoint'})."


def test_unknown_arguments_are_checked(ran: list[object], tmp_path: Path) -> None:
    """Even if their names say nothing about the file; output files are not checked."""
    file = evil(tmp_path / "weights.data")
    assert error_of(invoke("train", config(), f"--weights={file}")).startswith(str(file))
    assert error_of(invoke("train", config(), "--cfg-options", f"a.b={file}")).startswith(str(file))
    with Path("results.pkl").open("wb") as out:
        pickle.dump([np.float64(1)], out)
    made.mm(tmp_path / "ok.pth", made.timm_vit(), made.timm_vit())
    for option in ("--out", "--show-dir"):
        assert invoke("test", config(), "ok.pth", option, "results.pkl").exit_code == 0
    data = ["--cfg-options", "train_dataloader.dataset.ann_file=results.pkl"]
    assert invoke("train", config(annotations="results.pkl"), *data).exit_code == 0
    assert len(ran) == 3


@pytest.mark.parametrize(
    ("init_cfg", "more", "arguments", "message"),
    [
        ({"type": "Pretrained", "checkpoint": "no.pth"}, "", [],
         "There is no checkpoint no.pth (given by model.backbone.init_cfg.checkpoint)."),
        ([{"type": "Pretrained", "checkpoint": "no.pth"}], "", [],
         "There is no checkpoint no.pth (given by model.backbone.init_cfg.0.checkpoint)."),
        (None, "load_from = 'no.pth'", [], "There is no checkpoint no.pth (given by load_from)."),
        (None, "", ["--cfg-options", "load_from=no.pth"],
         "There is no checkpoint no.pth (given by load_from)."),
        (None, "", ["--resume", "no.pth"], "There is no checkpoint no.pth (given by --resume)."),
        (None, "", ["--cfg-options", "model.backbone.depth.a=1"], "--cfg-options do not fit the"),
    ],
)  # fmt: skip
def test_missing_checkpoints_are_found_before_training(
    init_cfg: Any, more: str, arguments: list[str], message: str, ran: list[object]
) -> None:
    assert error_of(invoke("train", config(init_cfg, more), *arguments)).startswith(message)
    assert not ran


def test_checkpoints_that_are_not_needed_may_be_missing(ran: list[object], tmp_path: Path) -> None:
    gone = {"type": "Pretrained", "checkpoint": "no.pth"}
    torch.save({}, "ok.pth")
    assert invoke("test", config(gone, "load_from = 'no.pth'"), "ok.pth").exit_code == 0
    remote = {"type": "Pretrained", "checkpoint": "torchvision://resnet18"}
    assert invoke("train", config(remote)).exit_code == 0
    assert invoke("train", config(more="load_from = 'no.pth'"), "--resume").exit_code == 0
    assert len(ran) == 3


def test_mmengine_checks_files_that_are_loaded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a file that a network loads itself while the tool runs."""
    model = nn.Linear(2, 2)
    torch.save(model.state_dict(), tmp_path / "ok.pth")
    file = evil(tmp_path / "evil.pth")
    plain = CheckpointLoader._schemes[""]
    monkeypatch.setenv("HOME", str(tmp_path))
    with safe_loading():
        for name in (str(file), "~/evil.pth"):
            with pytest.raises(
                ValueError, match=r"evil\.pth is not a checkpoint of weights: it contains"
            ):
                load_checkpoint(model, name)
        other = nn.Linear(2, 2)
        load_checkpoint(other, str(tmp_path / "ok.pth"), strict=True)
        assert torch.equal(other.weight, model.weight)
        with pytest.raises(FileNotFoundError):
            load_checkpoint(model, str(tmp_path / "no.pth"))
    assert CheckpointLoader._schemes[""] is plain and not (tmp_path / "ran").exists()


def test_a_header_of_safetensors_before_an_archive(tmp_path: Path) -> None:
    """torch recognizes .tar files of its first versions by byte 257, whatever their names."""
    path = tmp_path / "a.safetensors"
    header = json.dumps({"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("pickle")
        info.size = len(header)
        archive.addfile(info, io.BytesIO(header))
    assert could_be_torch(path)
    with pytest.raises(
        ValueError, match=r"a\.safetensors is not a checkpoint of weights: it is damag"
    ):
        check_no_code(path)


def test_could_be_torch(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for zipped in (True, False):
        torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
        assert could_be_torch(path)
    path.write_bytes(path.read_bytes()[:100])
    assert could_be_torch(path)
    path.write_bytes(pickle.dumps(1))
    assert could_be_torch(path)
    np.savez(tmp_path / "b.npz", a=np.ones(2))
    assert not could_be_torch(tmp_path / "b.npz")
    for content in (b"", b"{}", b"import os", b"\x89PNG"):
        path.write_bytes(content)
        assert not could_be_torch(path)


def test_the_error_for_a_whole_model_says_what_to_save(tmp_path: Path) -> None:
    torch.save(made.timm_vit(), tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"is neither loaded nor run\. Save model\.state_dict\(\) i"
    ):
        check_no_code(tmp_path / "a.pth")
