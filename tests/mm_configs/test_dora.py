"""Every shipped self-distillation config loads, builds, takes a step, and quotes the thesis."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from reproduce import reproduced

import mixplug.mm  # noqa: F401  registers
from mixplug.data.multicrop import MultiCrop
from mixplug.data.walking_tours import TOURS
from mixplug.models.self_distillation import Views
from mixplug.registry import MODELS

ROOT = Path(__file__).parents[2] / "mm_configs"
PAGES = reproduced("chapter6")
SMALL = "dora_vit-tiny_bikes-4e"  # a quick run without a row in the thesis
CONFIGS = sorted(path.stem for path in (ROOT / "dora").glob("*.py") if path.stem != SMALL)
VENICE = "dora_vit-small_venice-100e"
# Tables 6.4, 6.5 and 6.6: linear probe, k-NN, Jaccard, CorLoc
ROWS = {
    VENICE: "45.4 33.8 44.0 56.2",
    "dora_vit-small_wt-all-100e": "45.3 35.7 44.3 57.1",
    "dino_vit-small_venice-100e": "33.8 29.9 43.8 51.2",
    "dino_vit-small_wt-all-100e": "36.6 31.1 42.9 55.8",
    "dino_vit-small_in1k-100e": "71.4 69.0 44.5 59.6",
    "dora-star_vit-small_in1k-60e": "71.9 69.4 44.4 60.0",
    "dora-star_vit-small_in1k-100e": "72.2 69.6 44.8 60.2",
}
# Table 6.7b and c: linear probe and CorLoc
ABLATIONS = {
    "model.objects=1": "39.9 53.9",
    "model.objects=2": "43.1 55.7",
    "model.objects=4": "39.2 53.8",
    "model.objects=5": "36.7 50.3",
    "model.objects=6": "35.8 48.8",
    "model.objects=16 model.heads=16": "28.3 48.5",
    "model.objects=32 model.heads=32": "27.1 46.8",
    "model.refine=False": "42.5 55.3",
    "model.mask=random": "29.9 46.7",
    "model.mask=random model.refine=False": "33.0 49.8",
}


def config_of(name: str, options: str = "") -> Config:
    config = Config.fromfile(ROOT / "dora" / f"{name}.py")
    given = [word.split("=", 1) for word in shlex.split(options)]
    config.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in given})
    return config


def step(config: Config) -> dict[str, torch.Tensor]:
    """One of a network as wide as the config's, but with one block and a small head."""
    init_default_scope("mmpretrain")
    config.model.backbone.depth = 1
    config.model.head = {"out_dim": 32, "hidden": 16, "bottleneck": 8}
    model = MODELS.build(config.model)
    optim = build_optim_wrapper(model, config.optim_wrapper)
    model.method.attach(optim.optimizer)
    views = Views(torch.randn(2, 1, 2, 3, 32, 32), torch.randn(2, 1, 2, 3, 16, 16))
    terms = model(views=views, mode="loss")
    optim.update_params(sum(value for key, value in terms.items() if "loss" in key))
    return terms


@pytest.mark.parametrize("name", CONFIGS)
def test_the_name_matches_the_content(name: str) -> None:
    method, arch, rest = name.split("_")[:3]
    config = config_of(name)
    data, epochs = re.fullmatch(r"(.*)-(\d+)e", rest).groups()
    assert config.model.type == {"dino": "mixplug.DINO"}.get(method, "mixplug.DoRA")
    assert config.model.get("tracking", True) == (method != "dora-star")
    assert arch == "vit-small" and config.model.backbone.model_name == "vit_small_patch16_224"
    assert config.train_cfg.max_epochs == int(epochs) == config.param_scheduler[1].end
    assert config.param_scheduler[2].end == int(epochs)
    dataset = config.train_dataloader.dataset
    assert dataset.type == ("ImageNet" if data == "in1k" else "mixplug.VideoClips")
    assert config.optim_wrapper.optimizer.type == ("LARS" if name.endswith("lars") else "AdamW")


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_of_the_thesis(name: str) -> None:
    """6.5.2 and 6.5.3; DINO's settings where the thesis gives none."""
    config = config_of(name)
    dataset = config.train_dataloader.dataset
    views = dict(dataset.get("views") or dataset.pipeline[-1])
    views.pop("type", None)
    assert MultiCrop(**{k: tuple(v) if isinstance(v, list) else v for k, v in views.items()}) == (
        MultiCrop(large=224, small=96, smalls=6, large_scale=(0.4, 1.0), small_scale=(0.05, 0.4))
    )
    frames = dataset.get("frames", 1)
    assert config.train_dataloader.batch_size * frames == 128
    if frames > 1:
        assert (dataset.frames, dataset.interval, dataset.crop) == (8, 1.0, 300)
    assert config.model.get("objects", 3) == 3
    assert config.optim_wrapper.optimizer.lr == 5e-4
    assert config.param_scheduler[1].eta_min == 1e-6
    assert (config.optim_wrapper.optimizer.weight_decay, config.param_scheduler[2].eta_min) == (
        0.04,
        0.4,
    )


def test_an_epoch_has_the_frames_of_table_6_2() -> None:
    one = config_of(VENICE).train_dataloader.dataset.frames_per_epoch
    many = config_of("dora_vit-small_wt-all-100e").train_dataloader.dataset.frames_per_epoch
    assert one == round(1000 * TOURS["venice"].kiloframes)
    assert many == round(1000 * sum(tour.kiloframes for tour in TOURS.values()))


@pytest.mark.parametrize("name", CONFIGS)
def test_one_step(name: str) -> None:
    terms = step(config_of(name))
    wanted = "loss_global" if name.startswith("dino") else "loss_object"
    assert wanted in terms and all(bool(t.isfinite().all()) for t in terms.values())


@pytest.mark.parametrize("options", ABLATIONS)
def test_ablations_of_table_6_7(options: str) -> None:
    config = config_of(VENICE, options)
    terms = step(config)
    assert bool(terms["loss_object"].isfinite())
    probe, corloc = ABLATIONS[options].split()
    assert f"`{options}` | {probe} | {corloc} |" in PAGES


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_thesis(name: str) -> None:
    (row,) = [line for line in PAGES.splitlines() if f"](dora/{name}.py)" in line and "|" in line]
    assert [cell.strip() for cell in row.split("|")[2:6]] == ROWS[name].split()


def test_the_quick_config_runs(tmp_path: Path) -> None:
    config = config_of(SMALL)
    config.work_dir, config.log_level = str(tmp_path), "WARNING"
    config.train_dataloader.dataset.frames_per_epoch = 32  # two steps
    config.train_cfg.max_epochs = 1
    runner = Runner.from_cfg(config)
    before = runner.model.method.center.clone()
    runner.train()
    assert runner.iter == 2 and not torch.equal(before, runner.model.method.center)
    assert (tmp_path / "epoch_1.pth").is_file()


def test_every_config_is_on_a_page() -> None:
    assert [name for name in [SMALL, *CONFIGS] if f"dora/{name}.py" not in PAGES] == []
