"""``mixplug weights``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner
from weights import made

from mixplug.cli.weights import app
from mixplug.from_config.config import backbone_of
from mixplug.models.vit import vit_of
from mixplug.registry import MODELS
from mixplug.weights import part, read

CONFIG = """
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer', img_size=32, patch_size=8,
        arch=dict(embed_dims={width}, num_layers=2, num_heads=2, feedforward_channels=192)),
    head=dict(type='LinearClsHead', num_classes=5, in_channels={width}))
"""


def invoke(*arguments: object) -> object:
    run = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "120"})
    assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
    return run


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return made.dino(tmp_path / "a.pth", made.timm_vit(), made.timm_vit())


def test_convert(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    run = invoke("convert", saved, "--part", "student", "--to", "mmpretrain", out)
    assert run.exit_code == 0, run.output
    model = made.mm_vit()
    model.load_state_dict(read(out))
    expected, _ = vit_of(saved, "student")
    torch.testing.assert_close(made.output(model), made.output(expected), atol=1e-5, rtol=1e-5)
    numbers = sum(value.numel() for value in model.state_dict().values())
    for line in (
        "from: student ('student.module.backbone.*'), with the names of timm",
        f"written: 30 tensors, {numbers:,} numbers, with the names of mmpretrain",
        "left out: head.mlp.0.weight, head.mlp.0.bias",
        f"file: {out.resolve()}",
    ):
        assert line in run.output
    run = invoke("convert", saved, out, "--to", "timm", "--grid", "6x3")
    assert run.exit_code == 0 and read(out)["pos_embed"].shape == (1, 19, 128)
    assert "from: teacher ('teacher.backbone.*')" in run.output


def test_the_grid_is_not_in_the_file(saved: Path, tmp_path: Path) -> None:
    """10 x 12 patches and a class token have 121 positions, like 11 x 11 without a token."""
    out = tmp_path / "out.safetensors"
    run = invoke("convert", saved, out, "--to", "timm", "--grid", "10x12")
    assert run.exit_code == 0 and "grid: 10x12. The file does not store it" in run.output
    run = invoke("check", out, "--grid", "10x12")
    assert run.exit_code == 0 and "in a grid of 10 x 12" in run.output
    run = invoke("check", out, "--model", "vit_base_patch16_224", "--grid", "10")
    assert run.exit_code != 0 and "needs ROWSxCOLUMNS" in run.output


def test_check_prints_the_content(saved: Path, tmp_path: Path) -> None:
    run = invoke("check", saved)
    assert run.exit_code == 0, run.output
    lines = run.output.splitlines()
    assert ["blocks.*.attn.qkv.weight", "x2", "(384,", "128)"] in map(str.split, lines)
    assert "* teacher ('teacher.backbone.*'): 30 tensors, and a head of 8" in lines
    assert "  student ('student.module.backbone.*'): 30 tensors, and a head of 8" in lines
    assert (
        lines[-1] == "teacher: a vision transformer with the names of timm, width 128, depth 2, "
        "patches of 8 x 8 pixels in a grid of 4 x 4, 0 registers; 2 heads, assuming 64 channels "
        "per head"
    )
    torch.save({"state_dict": {"backbone.conv1.weight": torch.ones(2, 3)}}, tmp_path / "b.pth")
    run = invoke("check", tmp_path / "b.pth")
    assert run.exit_code == 0
    assert "model: no vision transformer of timm, mmpretrain, mmseg, DINO, DINOv2 or " in run.output
    torch.save(made.timm_vit(embed_dim=96).state_dict(), tmp_path / "c.pth")
    run = invoke("check", tmp_path / "c.pth")
    assert (
        run.exit_code == 0 and "Pass the number of heads" in run.output and "--heads" in run.output
    )
    run = invoke("check", tmp_path / "c.pth", "--heads", 3)
    assert run.exit_code == 0 and run.output.rstrip().endswith(
        "; 3 heads, assuming 32 channels per head"
    )


def test_check_fails_if_loading_would_fail(tmp_path: Path) -> None:
    """Even if nearly all values fit."""
    config = tmp_path / "c.py"
    config.write_text(CONFIG.format(width=128))
    for name, state, message in (
        (
            "a",
            {"blocks.1.norm2.bias": None},
            "1 tensor of the model would stay randomly initialized: layers.*",
        ),
        (
            "b",
            {"norm_pre.bias": torch.ones(128)},
            "uses would be dropped: pre_norm.bias;",
        ),
    ):
        whole = made.timm_vit().state_dict() | state
        torch.save({k: v for k, v in whole.items() if v is not None}, tmp_path / name)
        run = invoke("check", tmp_path / name, "--config", config)
        assert run.exit_code == 1 and message in run.output, run.output
        run = invoke("check", tmp_path / name, "--config", config, "--min-loaded", 0.98)
        assert run.exit_code == 0, run.output


def test_check_against_a_config(saved: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.py"
    config.write_text(CONFIG.format(width=128))
    run = invoke("check", saved, "--config", config)
    assert run.exit_code == 0, run.output
    assert "loaded  layers.*.attn.qkv.weight x2" in run.output
    assert "30 of 30 tensors (100.00 % of " in run.output
    config.write_text(CONFIG.format(width=64))
    run = invoke("check", saved, "--config", config)
    assert run.exit_code == 1
    assert "mismatched  layers.*.attn.qkv.weight x2" in run.output
    assert run.output.rstrip().endswith(  # 384 of 97088: only the bias of fc1 fits
        "mixplug: error: 0.39 % of the model would be loaded, but 99 % are needed; the checkpoint "
        "has width 128; the model has width 64."
    )
    assert invoke("check", saved, "--config", config, "--min-loaded", 384 / 97088).exit_code == 0
    config.write_text("a = 1")
    run = invoke("check", saved, "--config", config)
    assert run.exit_code == 1 and "c.py has no model" in run.output


def test_the_backbone_of_a_config_is_that_of_the_teacher(tmp_path: Path) -> None:
    config = tmp_path / "c.py"
    config.write_text("model = dict(type='mixplug.Pair')")

    @MODELS.register_module(name="Pair", force=True)
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Linear(1, 1)
            self.inner = nn.ModuleDict({"teacher": nn.ModuleDict({"backbone": nn.Linear(1, 2)})})

    assert backbone_of(config).out_features == 2
    config.write_text("model = dict(type='BaseDataPreprocessor')")
    with pytest.raises(ValueError, match=r"The model of .*c.py, BaseDataPrep\w+, has no backbone"):
        backbone_of(config)
    config.write_text("model = dict(type='NoSuch')")
    with pytest.raises(ValueError, match=r"The model of .*c.py cannot be built: .*NoSuch"):
        backbone_of(config)


def test_check_against_a_timm_model(saved: Path) -> None:
    run = invoke("check", saved, "--model", "vit_tiny_patch16_224")
    assert run.exit_code == 1 and "mixplug: error: 0.00 % of the model would be" in run.output
    run = invoke("check", saved, "--model", "vit_tinny_patch16_224")
    assert run.exit_code == 1 and "Nearest: vit_tiny_patch16_224" in run.output


def test_errors_are_one_line(saved: Path, tmp_path: Path) -> None:
    for arguments, code, message in (
        (("check", tmp_path / "no.pth"), 1, "mixplug: error: There is no checkpoint"),
        (("check", saved, "--part", "ema"), 1, "a.pth has no part ema. It has: teacher, student."),
        (("check", saved, "--model", "a", "--config", "b"), 2, "pass only one"),
        (("convert", saved, saved, "--to", "timm"), 1, "is the checkpoint itself"),
        (("convert", saved, "b.pth", "--to", "timm", "--grid", "4"), 2, "such as 14x14"),
        (("convert", saved, "b.pth"), 2, "--to"),
        (
            ("convert", saved, "b.bin", "--to", "timm"),
            1,
            "with .safetensors, .pth or .pt; got b.bin",
        ),
        (
            ("convert", saved, "b.pth", "--to", "detectron"),
            1,
            "to must be timm, mmpretrain, dino or mmseg;",
        ),
    ):
        run = invoke(*arguments)
        assert run.exit_code == code and message in " ".join(run.output.split()), run.output
    assert list(part(read(saved)).backbone)  # the checkpoint was not changed
