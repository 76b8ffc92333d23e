"""Every detection and segmentation config builds, loads its weights, and quotes the thesis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from reproduce import reproduced

import mixplug.mm  # noqa: F401  registers

ROOT = Path(__file__).parents[2] / "mm_configs"
PAGES = reproduced("chapter5", "chapter6")
CONFIGS = sorted(
    f"{folder}/{path.stem}"
    for folder in ("detection", "segmentation")
    for path in (ROOT / folder).glob("*.py")
)
DETECTOR = "detection/cascade-mask-rcnn_vit-small-p16_fpn_1x_coco"
SEGMENTOR = "segmentation/vit-small-p16_upernet_4xb1-160k_ade20k-512x512"
# Tables 6.3 and 6.6: box, mask, mIoU, Acc_m
ROWS = {
    "": "28.6 24.3 25.1 33.3",
    "_dora-venice": "39.5 34.7 35.4 45.5",
    "_dora-wt-all": "40.7 36.3 36.9 48.0",
    "_dino-venice": "37.1 32.1 32.4 43.7",
    "_dino-in1k": "39.9 35.1 33.9 44.3",
    "_dora-star-in1k": "39.9 35.1 35.8 45.1",
}


def config_of(name: str) -> Any:
    return Config.fromfile(ROOT / f"{name}.py")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_builds_with_its_optimizer(name: str) -> None:
    """With full-size backbones; training is tested with the tiny configs."""
    config = config_of(name)
    assert config.default_scope == ("mmdet" if name.startswith("det") else "mmseg")
    assert config.custom_imports.imports == ["mixplug.mm"]
    with DefaultScope.overwrite_default_scope(config.default_scope), torch.device("meta"):
        model = MODELS.build(config.model)
        optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert {id(p) for p in model.parameters() if p.requires_grad} <= set(held)
    assert set(held) <= {id(p) for p in model.parameters()}
    rated = [id(p) for group in optimizer.param_groups if group["lr"] for p in group["params"]]
    assert set(rated) == set(held)


@pytest.mark.parametrize("suffix", ROWS)
def test_rows_of_the_thesis(suffix: str) -> None:
    numbers = ROWS[suffix].split()
    shown = f"`{suffix}`" if suffix else "none: random weights"
    assert f"| {shown} | {' | '.join(numbers)} |" in PAGES
    for base, own in ((DETECTOR, numbers[:2]), (SEGMENTOR, numbers[2:])):
        comment = (ROOT / f"{base}{suffix}.py").read_text().partition("_base_")[0]
        assert all(number in comment for number in own)


@pytest.mark.parametrize("suffix", [suffix for suffix in ROWS if suffix])
def test_weights_come_from_a_shipped_config(suffix: str) -> None:
    for base in (DETECTOR, SEGMENTOR):
        init = config_of(base + suffix).model.backbone.init_cfg
        _, run, file = init.checkpoint.split("/")
        pretraining = Config.fromfile(ROOT / "dora" / f"{run}.py")
        assert (init.type, init.part) == ("mixplug.Pretrained", "teacher")
        assert file == f"epoch_{pretraining.train_cfg.max_epochs}.pth"
        data = "in1k" if suffix.endswith("in1k") else suffix.partition("-")[2]
        assert f"_{data}-" in run and run.startswith(suffix[1:].removesuffix(f"-{data}"))


def test_settings_of_6_5_3() -> None:
    found = config_of(DETECTOR)
    assert found.train_cfg.max_epochs == 12 and found.param_scheduler[1].milestones == [9, 11]
    optimizer = found.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert found.optim_wrapper.paramwise_cfg.layer_decay_rate in (0.65, 0.75, 0.8, 0.9, 1.0)
    (resize,) = [t for t in found.train_dataloader.dataset.pipeline if "Resize" in t.type]
    sides = [side for _, side in resize.scales]
    assert (min(sides), max(sides), {long for long, _ in resize.scales}) == (480, 800, {1333})
    assert tuple(found.model.backbone.out_indices) == (3, 5, 7, 11)
    assert [neck.type for neck in found.model.neck] == ["mixplug.ViTPyramid", "FPN"]
    found = config_of(SEGMENTOR)
    optimizer = found.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 6e-5, 0.01)
    assert found.param_scheduler[0].end == 1500 and found.train_cfg.max_iters == 160000
    assert found.train_dataloader.batch_size * 4 == 4


def test_a_base_of_mmseg_is_found(tmp_path: Path) -> None:
    """mmengine looks for a package mmsegmentation; the maintained fork has another name."""
    path = tmp_path / "config.py"
    path.write_text("_base_ = 'mmseg::_base_/models/upernet_r50.py'\n")
    assert Config.fromfile(path).model.type == "EncoderDecoder"


def test_every_config_is_on_a_page() -> None:
    suffixes = tuple(suffix for suffix in ROWS if suffix)
    named = [name for name in CONFIGS if not name.endswith(suffixes)]
    assert [name for name in named if f"{name}.py" not in PAGES] == []
