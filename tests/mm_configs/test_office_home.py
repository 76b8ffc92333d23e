"""The configs of Office-Home build, use the right splits, and quote Table 5.8."""

from __future__ import annotations

from pathlib import Path

import folders
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import mixplug
import mixplug.mm  # registers
from mixplug.data.office_home import CLASSES
from mixplug.hosts.mm.mixing.classifier import train_with

ROOT = Path(__file__).parents[2] / "mm_configs" / "office_home"
TARGETS = ("Clipart", "Real World", "Product", "Art")
# Table 5.8; the first row is DAML's
ROWS = {
    "baseline": "45.13 65.99 61.54 53.13",
    "multimix": "46.01 66.59 60.99 54.58",
    "dense-multimix": "46.32 66.87 62.28 56.01",
}
TYPES = {"multimix": "MultiMix", "dense-multimix": "DenseMultiMix"}
CASES = [(method, target) for method in ROWS for target in TARGETS]


def path(method: str, target: str) -> Path:
    slug = target.lower().replace(" ", "-")
    return ROOT / f"{method}_resnet18_1xb72-30e_office-home-{slug}.py"


def test_every_number_has_a_config() -> None:
    assert {file.name for file in ROOT.glob("*.py")} == {path(*case).name for case in CASES}


@pytest.mark.parametrize(("method", "target"), CASES)
def test_a_config_quotes_its_number_and_sets_its_target(method: str, target: str) -> None:
    number = ROWS[method].split()[TARGETS.index(target)]
    text = " ".join(path(method, target).read_text().replace("# ", "").split())
    whose = "for the other method, DAML, an" if method == "baseline" else "number, not ours:"
    assert f"{whose} accuracy" in text and f" {number} % (Table 5.8)" in text
    config = Config.fromfile(path(method, target))
    for split in ("train", "val", "test"):
        dataset = config[f"{split}_dataloader"].dataset
        assert (dataset.target, dataset.split) == (target, split)
    assert config.get("mixup", {}).get("type") == TYPES.get(method)


def test_the_settings_are_those_of_daml() -> None:
    """24 images of each domain, 101 iterations, 30 epochs, decay after epoch 24."""
    config = Config.fromfile(path("multimix", "Art"))
    loader = config.train_dataloader
    assert loader.batch_size == 3 * 24 == config.auto_scale_lr.base_batch_size
    assert loader.sampler.length == 101 * loader.batch_size and loader.sampler.key == "domain"
    assert config.train_cfg.max_epochs == 30 and config.param_scheduler.milestones == [24]
    assert config.optim_wrapper.optimizer == {
        "type": "SGD", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True,
    }  # fmt: skip
    kinds = [step.type for step in loader.dataset.pipeline]
    assert kinds == ["LoadImageFromFile", "ResizeEdge", "CenterCrop", "PackInputs"]


@pytest.mark.parametrize("method", ROWS)
def test_one_step(method: str) -> None:
    config = Config.fromfile(path(method, "Product"))
    init_default_scope(config.default_scope)
    config.model.backbone.init_cfg = None  # not downloaded
    model = MODELS.build({**config.model, "data_preprocessor": config.data_preprocessor}).train()
    if "mixup" in config:
        train_with(model, mixplug.build({**config.mixup, "n": 8}, kind="mixer"))
    optim = build_optim_wrapper(model, config.optim_wrapper)
    before = model.head.fc.weight.detach().clone()
    samples = [DataSample().set_gt_label(k) for k in (0, 53)]
    losses = model.loss(torch.randn(2, 3, 64, 64), samples)
    optim.update_params(losses["loss"])
    assert model.head.fc.weight.shape == (54, 512)
    assert torch.isfinite(losses["loss"]) and not torch.equal(before, model.head.fc.weight)


def test_a_config_runs(tmp_path: Path) -> None:
    """From folders to scores with the Runner, on few and tiny images."""
    config = Config.fromfile(path("multimix", "Art"))
    small = [
        {"type": "LoadImageFromFile"},
        {"type": "ResizeEdge", "scale": 34, "edge": "short"},
        {"type": "CenterCrop", "crop_size": 32},
        {"type": "PackInputs"},
    ]
    root = folders.office_home(tmp_path / "home", 2, CLASSES)
    for split in ("train", "val", "test"):
        loader = config[f"{split}_dataloader"]
        loader.num_workers = 0
        loader.dataset.pipeline, loader.dataset.data_root = small, str(root)
    config.train_dataloader.batch_size = 4
    config.train_dataloader.sampler.length = 8
    config.train_cfg.max_epochs = 1
    config.model.backbone.init_cfg = None
    config.work_dir, config.log_level = str(tmp_path / "run"), "ERROR"
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.iter == 2 and (tmp_path / "run" / "epoch_1.pth").is_file()
    # all images are equal, so at most one class is right, of 16 known ones with two images each
    scores = runner.test()
    assert scores["known_accuracy"] in (0.0, pytest.approx(100 / 16))
    assert set(scores) == {"known_accuracy", "h_score", "open_accuracy"}
