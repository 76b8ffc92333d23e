"""Every command that reads a checkpoint refuses one with code in it, and does not run the code."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner
from weights import made

import mixplug
from mixplug.cli import app, tools
from mixplug.data.shipped import shipped_clip
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.models.vit import vit_of
from mixplug.weights import load_file

DECODER = "decoder_wrn10-1_1xb64-20e_digits"
DIGITS = "baseline-ms_wrn10-1_1xb64-10e_digits"
PACKAGE = Path(mixplug.__file__).parent


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch {folder / 'evil'}"

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A complete ViT checkpoint whose arguments contain a command."""
    path = tmp_path / "evil.pth"
    made.dino(path, made.timm_vit(), made.timm_vit(), more=Evil(tmp_path))
    torch.load(path, weights_only=False)
    (tmp_path / "evil").unlink()  # torch.load without weights_only runs it
    return path


COMMANDS = {
    "weights convert": ["{evil}", "{folder}/out.pth", "--to", "timm"],
    "weights check": ["{evil}"],
    "weights check --model": ["{evil}", "--model", "vit_tiny_patch16_224"],
    "viz tracks": [str(shipped_clip("bikes")), "{evil}", "--out", "{folder}"],
    "viz alignment": ["a.png", "b.png", "--ckpt", "{evil}", "--config", DECODER],
    "viz retrieval": [DIGITS, "{evil}", "--out", "{folder}"],
    "viz embedding": [DIGITS, "{evil}", "--out", "{folder}"],
    "viz positivity": [DIGITS, "{evil}", "--out", "{folder}"],
    "test": [DIGITS, "{evil}"],
    "train --resume": [DIGITS, "--resume", "{evil}"],
    "train --cfg-options": [DIGITS, "--cfg-options", "load_from={evil}"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_code(
    command: str, evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []
    monkeypatch.setattr(tools.runpy, "run_path", lambda *path, **_: ran.append(path))
    monkeypatch.setattr(sys, "argv", ["mixplug"])
    words = [word for word in command.split() if not word.startswith("--")]
    given = [word.format(evil=evil, folder=tmp_path) for word in COMMANDS[command]]
    run = CliRunner().invoke(app, [*words, *given], env={"COLUMNS": "400"})
    assert run.exit_code == 1, run.output
    message = (
        f"mixplug: error: {evil} is not a checkpoint of weights: it contains {os.name}.system, "
    )
    assert f"{message}which is neither loaded nor run." in run.output
    assert not ran and not (tmp_path / "evil").exists() and not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("reader", [vit_of, Frozen.of, lambda p: load_file(made.timm_vit(), p)])
def test_readers_of_evaluations_refuse_code(reader, evil: Path, tmp_path: Path) -> None:
    """All commands of ``mixplug eval`` read with ``Frozen.of``."""
    with pytest.raises(ValueError, match=r"evil\.pth is not a checkpoint of weights: it contains"):
        reader(evil)
    assert not (tmp_path / "evil").exists()


def test_init_cfg_refuses_code(evil: Path, tmp_path: Path) -> None:
    from mmengine.registry import MODELS

    import mixplug.mm  # noqa: F401  registers

    keys = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
    model = MODELS.build(
        {"type": "mixplug.TimmViT", "model_name": "vit_tiny_patch16_224", "mlp_ratio": 1.5,
         "out_indices": (1,), "init_cfg": {"type": "mixplug.Pretrained", "checkpoint": str(evil)},
         **keys}
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"evil\.pth is not a checkpoint of weights: it contains"):
        model.init_weights()
    assert not (tmp_path / "evil").exists()


def test_tools_get_checkpoints_without_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []
    monkeypatch.setattr(tools.runpy, "run_path", lambda *path, **_: ran.append(path))
    monkeypatch.setattr(sys, "argv", ["mixplug"])
    path = made.mm(tmp_path / "a.pth", made.timm_vit(), made.timm_vit())
    run = CliRunner().invoke(app, ["test", DIGITS, str(path)])
    assert run.exit_code == 0 and len(ran) == 1, run.output


def test_no_other_code_reads_pickles() -> None:
    """The whole package reads with :func:`mixplug.weights.read` or torch's weights_only."""
    found, safe = [], 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            keys = {key.arg: ast.unparse(key.value) for key in node.keywords}
            if name == "torch.load" and keys.get("weights_only") == "True":
                safe += 1
            elif name in ("torch.load", "pickle.load", "pickle.loads", "joblib.load") or (
                name.endswith("load_checkpoint") or keys.get("allow_pickle") == "True"
            ):
                found.append(f"{path.relative_to(PACKAGE)}: {ast.unparse(node)}")
    assert not found and safe >= 2
