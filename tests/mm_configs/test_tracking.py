"""Every shipped tracking config loads, builds, takes a step, and quotes the thesis."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import mixplug.mm  # noqa: F401  registers
from mixplug.registry import MODELS

ROOT = Path(__file__).parents[2] / "mm_configs" / "tracking"
BASE = "seqtrack-lite_vit-small-p16_8xb8-500e_got10k"
# Table 6.4b: mAO, SR at 0.5 and 0.75
ROWS = {
    "": ("23.1", "19.0", "3.4"),
    "_dora-wt-all": ("45.9", "53.4", "23.7"),
    "_dora-venice": ("41.4", "47.2", "18.2"),
    "_dino-in1k": ("46.4", "54.3", "24.1"),
    "_dino-venice": ("37.4", "41.4", "13.4"),
}


def test_every_row_of_the_table_has_a_config() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == {BASE + name for name in ROWS}


@pytest.mark.parametrize("name", ROWS)
def test_a_config_quotes_its_row(name: str) -> None:
    text = (ROOT / f"{BASE}{name}.py").read_text()
    mao, half, high = ROWS[name]
    comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert re.match(rf"Table 6\.4b.* mAO {mao}, SR_0\.5 {half}, SR_0\.75 {high}\.", comment)


@pytest.mark.parametrize("name", list(ROWS)[1:])
def test_weights_come_from_a_shipped_config(name: str) -> None:
    config = Config.fromfile(ROOT / f"{BASE}{name}.py")
    init = config.model.backbone.init_cfg
    run = Path(init.checkpoint).parent.name
    epochs = Config.fromfile(ROOT.parent / "dora" / f"{run}.py").train_cfg.max_epochs
    assert Path(init.checkpoint).name == f"epoch_{epochs}.pth"
    assert init.type == "mixplug.Pretrained" and init.part == "teacher"
    assert run.startswith(name[1:5])


def test_the_model_of_the_table_takes_a_step() -> None:
    config = Config.fromfile(ROOT / f"{BASE}.py")
    init_default_scope(config.default_scope)
    data = config.train_dataloader
    gpus, batch, epochs = map(int, re.search(r"(\d+)xb(\d+)-(\d+)e", BASE).groups())
    assert (data.batch_size, config.train_cfg.max_epochs) == (batch, epochs)
    assert config.auto_scale_lr.base_batch_size == gpus * batch
    for key in ("size", "templates", "template_factor", "search_factor"):
        assert config.model[key] == data.dataset[key]  # training and test use the same crops
    config.model.backbone.depth = 1
    model = MODELS.build(config.model).train()
    assert len(model.tracker.decoder.blocks) == 2 and model.tracker.view.width == 384
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    crops = torch.randint(0, 256, (1, 3, 3, 256, 256), dtype=torch.uint8)
    before = [p.clone() for p in model.parameters()]
    inputs = {"template": crops[:, 1:], "search": crops[:, 0], "box": torch.full((1, 4), 0.3)}
    losses = model.train_step(inputs, optimizer)
    # an untrained decoder gives all 4002 words the same probability, exp(-8.3)
    assert abs(float(losses["loss"]) - 8.3) < 1.5
    for old, p in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, p) != p.requires_grad
