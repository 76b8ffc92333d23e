"""Shipped configs of linear probes and k-NN: what they build, and what they quote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from timm.models.vision_transformer import VisionTransformer

import mixplug.mm  # noqa: F401  registers
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.frozen.linear import Probe
from mixplug.registry import METRICS
from mixplug.weights import Preprocessing

ROOT = Path(__file__).parents[2] / "mm_configs"
STEM = "8xb128-linear-coslr-100e_in1k"
# Tables 6.5a and 6.6: linear probe and k-NN
ROWS = {
    "dora-venice": ("6.5a", "45.4", "33.8"),
    "dora-wt-all": ("6.5a", "45.3", "35.7"),
    "dino-venice": ("6.5a", "33.8", "29.9"),
    "dino-wt-all": ("6.5a", "36.6", "31.1"),
    "dino-in1k": ("6.6", "71.4", "69.0"),
    "dora-star-in1k": ("6.6", "72.2", "69.6"),
}


def path(name: str) -> Path:
    return ROOT / "linear" / f"vit-small-p16_{name}_{STEM}.py"


def test_every_row_has_a_config() -> None:
    found = {file.name for file in (ROOT / "linear").glob("*.py")}
    assert found == {path(name).name for name in ROWS} | {f"vit-small-p16_{STEM}.py"}


@pytest.mark.parametrize("name", ROWS)
def test_a_config_quotes_its_row_and_uses_weights_of_a_shipped_config(name: str) -> None:
    table, probe, neighbors = ROWS[name]
    first = path(name).read_text().splitlines()[0]
    assert re.match(rf"# Table {re.escape(table)}, .*: LP {probe}, k-NN {neighbors}[.;]", first)
    init = Config.fromfile(path(name)).model.backbone.init_cfg
    run = Path(init.checkpoint).parent.name
    pretrained = Config.fromfile(ROOT / "dora" / f"{run}.py")
    assert Path(init.checkpoint).name == f"epoch_{pretrained.train_cfg.max_epochs}.pth"
    assert (init.type, init.part) == ("mixplug.Pretrained", "teacher")
    assert run.replace("_vit-small_", "-").startswith(name)


def images_of_the_command(folder: Path) -> Preprocessing:
    """How mixplug eval prepares images for a small ViT in a checkpoint of DINO's or DoRA's form."""
    vit = VisionTransformer(224, 16, num_classes=0, embed_dim=12, depth=1, num_heads=2)
    network = {f"backbone.{name}": value for name, value in vit.state_dict().items()}
    torch.save({"student": network, "teacher": network}, folder / "vit.pth")
    return Frozen.of(folder / "vit.pth", "teacher", heads=2, device="cpu").images


def test_a_step_equals_that_of_the_command(tmp_path: Path) -> None:
    """The settings are those of mixplug eval linear with 1024 images; only the classifier moves."""
    config, probe = Config.fromfile(ROOT / "linear" / f"vit-small-p16_{STEM}.py"), Probe()
    init_default_scope(config.default_scope)
    assert config.train_dataloader.batch_size * 8 == probe.batch_size
    assert config.auto_scale_lr.base_batch_size == probe.batch_size
    assert config.train_cfg.max_epochs == config.param_scheduler.T_max == probe.epochs
    sgd = config.optim_wrapper.optimizer
    assert (sgd.lr, sgd.momentum, sgd.weight_decay) == (
        probe.rate(0), probe.momentum, probe.weight_decay,
    )  # fmt: skip
    assert config.model.backbone.blocks == probe.blocks
    crops = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    images = images_of_the_command(tmp_path)
    assert probe.size is None  # that of the checkpoint
    assert (crops["RandomResizedCrop"].scale,) * 2 == images.size
    assert (224 / 256, "bicubic", (224, 224)) == (images.crop, images.interpolation, images.size)
    for loader in (config.val_dataloader, config.test_dataloader):
        resize, crop = loader.dataset.pipeline[1:3]
        assert (resize.scale, resize.interpolation, crop.crop_size) == (256, "bicubic", 224)
    config.model.data_preprocessor = config.data_preprocessor
    model = MODELS.build(config.model)
    assert model.backbone.num_features == config.model.head.in_channels
    optim = build_optim_wrapper(model.train(), config.optim_wrapper)
    assert not any(module.training for module in model.backbone.model.modules())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, labels = torch.randn(1, 3, 224, 224), torch.tensor([7])
    loss = torch.nn.functional.cross_entropy(model.head.fc(model.backbone(inputs)[0]), labels)
    optim.update_params(loss)
    moved = {name for name, old in before.items() if not torch.equal(old, model.state_dict()[name])}
    assert moved == {"head.fc.weight", "head.fc.bias"}


def test_neighbors_equal_those_of_the_command() -> None:
    config = Config.fromfile(ROOT / "knn" / "vit-small-p16_knn_in1k.py")
    metric = METRICS.build(config.test_evaluator)
    assert (metric.k, metric.temperature) == (20, 0.07)
    splits = config.test_dataloader.dataset.datasets
    assert [one.split for one in splits] == ["train", "val"]
    resize, crop = splits[0].pipeline[1:3]
    assert (resize.scale, resize.interpolation, crop.crop_size) == (256, "bicubic", 224)
    assert splits[1].pipeline == splits[0].pipeline
    assert config.model.type == "mixplug.DoRA"
