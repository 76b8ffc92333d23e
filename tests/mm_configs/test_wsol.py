"""Every method of Table 3.7 that mixplug has is a config that trains with the settings of 3.4.2."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import mixplug
from mixplug import sampling
from mixplug.from_config.heat_maps import heat_maps_of
from mixplug.hosts.mm.mixing.classifier import train_with

ROOT = Path(__file__).parents[2] / "mm_configs" / "wsol"
# Table 3.7: top-1 localization and MaxBoxAccV2 of VGG-GAP and of R-50
ROWS = {
    "baseline": (None, "37.1", "59.0", "49.4", "59.7"),
    "input-mixup": ("InputMixup", "41.7", "57.1", "49.3", "60.6"),
    "cutmix": ("CutMix", "52.5", "62.6", "54.8", "64.8"),
    "alignmix": ("AlignMixup", "53.7", "64.5", "57.8", "65.9"),
}
RATES = {"vgg-gap": 1e-4, "resnet50": 1e-3}
NEW = {"vgg-gap": ("head.fc", "backbone.conv6"), "resnet50": ("head.fc",)}
EACH = [(method, arch) for method in ROWS for arch in RATES]


def path(method: str, arch: str) -> Path:
    return ROOT / f"{method}_{arch}_1xb16-600e_cub200.py"


@cache
def load(method: str, arch: str) -> Config:
    return Config.fromfile(path(method, arch))


def model_of(method: str, arch: str) -> torch.nn.Module:
    cfg = load(method, arch)
    init_default_scope(cfg.default_scope)
    model = MODELS.build({**cfg.model, "data_preprocessor": cfg.data_preprocessor})
    if "mixup" in cfg:
        train_with(model, mixplug.build(cfg.mixup, kind="mixer"))
    return model


@pytest.mark.parametrize(("method", "arch"), EACH)
def test_settings_of_the_thesis(method: str, arch: str) -> None:
    cfg, (kind, *numbers) = load(method, arch), ROWS[method]
    assert cfg.get("mixup", {}).get("type") == kind
    first, second = numbers[:2] if arch == "vgg-gap" else numbers[2:]
    quoted = f"not ours: top-1 localization {first} %, MaxBoxAccV2 {second} % (Table 3.7)\n"
    assert f"# the thesis' numbers, {quoted}" in path(method, arch).read_text()
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_cfg.max_epochs == 600
    assert cfg.param_scheduler.milestones == [150, 300, 450] and cfg.param_scheduler.gamma == 0.1
    optimizer = {"type": "SGD", "lr": RATES[arch], "momentum": 0.9, "weight_decay": 1e-4}
    assert cfg.optim_wrapper.optimizer == optimizer
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 200
    assert [t for t in cfg.train_pipeline if t.type in ("Resize", "RandomCrop")] == [
        {"type": "Resize", "scale": (256, 256)},
        {"type": "RandomCrop", "crop_size": 224},
    ]
    assert [t.type for t in cfg.test_pipeline] == ["LoadImageFromFile", "Resize", "PackInputs"]
    assert cfg.test_pipeline[1].scale == (224, 224)
    assert cfg.test_dataloader.dataset.type == "mixplug.CUBBoxes"
    assert cfg.custom_imports["imports"] == ["mixplug.mm"]


def test_no_other_configs() -> None:
    assert {file.name for file in ROOT.glob("*.py")} == {path(*one).name for one in EACH}


@pytest.mark.parametrize("arch", RATES)
def test_two_rates(arch: str) -> None:
    """New layers have ten times the learning rate of the layers with ImageNet weights."""
    model = model_of("baseline", arch)
    wrapper = build_optim_wrapper(model, load("baseline", arch).optim_wrapper)
    rate = {id(p): group["lr"] for group in wrapper.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        factor = 10 if name.startswith(NEW[arch]) else 1
        assert rate[id(parameter)] == pytest.approx(factor * RATES[arch]), name


@pytest.mark.parametrize("arch", RATES)
@torch.no_grad()
def test_maps_have_14_x_14_positions(arch: str) -> None:
    model = model_of("baseline", arch).eval()
    _, maps = heat_maps_of(model)(torch.randn(1, 3, 224, 224), torch.tensor([7]))
    assert maps.shape == (1, 14, 14)


@pytest.mark.parametrize(("method", "arch"), EACH)
def test_one_step(method: str, arch: str) -> None:
    """Finite loss and gradients; for AlignMixup in a mode that aligns."""
    model, x = model_of(method, arch).train(), torch.randn(2, 3, 32, 32)
    if method == "alignmix":
        model.clock.step = next(
            step for step in range(100)
            if model.mixer.sample(x, sampling.generators(0, step, 0)).branch == "A"
        )  # fmt: skip
        layer = {"vgg-gap": "backbone.features", "resnet50": "backbone.layer4.1"}[arch]
        assert (model.mixer.features or model.stages.features) == layer
    loss = model.loss(x, [DataSample().set_gt_label(k) for k in (3, 150)])["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
