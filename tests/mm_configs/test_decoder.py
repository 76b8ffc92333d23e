"""Configs of autoencoders (3.3.3): f is a layer on the last map, and only L_r is trained."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import mixplug
from mixplug import sampling
from mixplug.hosts.mm.mixing.classifier import train_with

ROOT = Path(__file__).parents[2] / "mm_configs"
CONFIGS = sorted(p.name for p in (ROOT / "alignmix").glob("decoder_*.py"))
SIDE = {"digits": (16, 10), "cifar100": (32, 100), "tiny-imagenet": (64, 200), "in1k": (224, 1000)}
SMALL = [name for name in CONFIGS if not name.endswith("_in1k.py")]  # otherwise f has 51M weights


@cache
def load(name: str) -> Config:
    return Config.fromfile(ROOT / "alignmix" / name)


def test_there_is_one_of_each_size() -> None:
    assert {Path(name).stem.rsplit("_", 1)[1] for name in CONFIGS} == set(SIDE)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_name_matches_the_content(name: str) -> None:
    cfg = load(name)
    _, _, setting, data = Path(name).stem.split("_")
    gpus, batch, epochs = map(int, re.fullmatch(r"(\d+)xb(\d+)-(\d+)e", setting).groups())
    side, classes = SIDE[data]
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler.T_max == epochs
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == classes
    assert cfg.model.head.in_channels == cfg.model.neck.out_channels
    assert cfg.mixup.image_shape == (3, side, side)
    assert cfg.custom_imports["imports"] == ["mixplug.mm"]
    assert cfg.val_cfg is None and cfg.val_dataloader is None and cfg.val_evaluator is None
    assert cfg.default_hooks.checkpoint.save_best is None
    assert cfg.test_dataloader.dataset.pipeline  # the figures use it to read pictures


@pytest.mark.parametrize("name", SMALL)
def test_one_step_trains_everything_except_the_classifier(name: str) -> None:
    """The loss is |x - D(f(F(x)))|^2, where f maps the whole feature map to one vector."""
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    model = MODELS.build({**cfg.model, "data_preprocessor": cfg.data_preprocessor})
    mixer = mixplug.build(cfg.mixup, kind="mixer", decoder_width=8)
    train_with(model, mixer)
    x = torch.randn(2, *cfg.mixup.image_shape)
    drawn = {mixer.sample(x, sampling.generators(0, step)).branch for step in range(20)}
    assert drawn == {"reconstruct"}
    samples = [DataSample().set_gt_label(k) for k in range(2)]
    loss = model.eval().loss(x, samples)["loss"]  # eval: batch norm uses running averages
    (a,) = model.backbone(x)
    assert a.shape[1:].numel() == cfg.model.neck.in_channels
    e = a.flatten(1) @ model.neck.fc.weight.T + model.neck.fc.bias
    image = model.mixup.decoder(e)
    torch.testing.assert_close(loss, ((x - image) ** 2).sum() / 2, rtol=1e-4, atol=1e-2)
    loss.backward()
    moved = {n.partition(".")[0] for n, p in model.named_parameters() if bool(p.grad.any())}
    assert moved == {"backbone", "neck", "mixup"}


def test_a_few_steps_improve_the_reconstruction(tmp_path: Path) -> None:
    cfg = load(next(name for name in CONFIGS if name.endswith("_digits.py"))).copy()
    cfg.merge_from_dict(
        {
            "work_dir": str(tmp_path),
            "train_cfg.max_epochs": 6,
            "param_scheduler.T_max": 6,
            "optim_wrapper.optimizer.lr": 1e-2,  # because of the few steps
            "randomness.seed": 0,
            "log_level": "ERROR",
            "train_dataloader.dataset.indices": 256,
            "mixup.decoder_width": 8,
        }
    )
    runner = Runner.from_cfg(cfg)
    images = torch.randn(0)

    def error() -> float:
        model = runner.model.eval()
        with torch.no_grad():
            e = model.stages(images).embedding
            return float((images - model.mixup.decoder(e)).square().sum((1, 2, 3)).mean())

    dataset = runner.build_dataloader(cfg.train_dataloader).dataset
    pixels = torch.stack([dataset[i]["inputs"] for i in range(32)]).float()
    images = (pixels - 77.9) / 84.7
    before = error()
    runner.train()
    assert error() < 0.7 * before
