"""Every shipped config of metric learning loads, builds, takes a step, and quotes the thesis."""

from __future__ import annotations

import copy
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from reproduce import reproduced

import mixplug.mm  # noqa: F401  registers
from mixplug import catalog
from mixplug.data.retrieval import SOURCES
from mixplug.losses.base import PairLoss
from mixplug.losses.metrix import LEVELS
from mixplug.registry import MODELS

ROOT = Path(__file__).parents[2] / "mm_configs"
PAGES = reproduced("chapter4")
CONFIGS = sorted(p.stem for p in (ROOT / "metrix").glob("*.py"))
DIGITS = [name for name in CONFIGS if name.endswith("_digits")]
THESIS = [n for n in CONFIGS if n not in DIGITS and n.startswith(("baseline-", "metrix-"))]
COMPARED = [name for name in CONFIGS if name not in (*DIGITS, *THESIS)]
SMALL = {"type": "mixplug.WideResNet", "depth": 10, "widen_factor": 1}
# 4.4.1 and Table 4.2: initial rate, its decay (and for contrastive), classes x examples, K
SETTINGS = {
    "cub200": (1e-4, 0.5, 0.1, None, (1, 2, 4, 8)),
    "cars196": (1e-4, 0.5, 0.1, None, (1, 2, 4, 8)),
    "sop": (3e-5, 0.25, 0.25, (20, 5), (1, 10, 100)),
    "inshop": (1e-4, 0.25, 0.25, (20, 5), (1, 10, 20)),
}
TYPES = {
    "contrastive": "Contrastive",
    "ms": "MultiSimilarity",
    "pa": "ProxyAnchor",
    "proxyncapp": "ProxyNCAPlusPlus",
}
# Table 4.3: R@K of CUB200, Cars196, SOP and In-Shop
ROWS = {
    ("contrastive", "baseline"): "64.7 75.9 84.6 81.6 88.2 92.7 74.9 87.0 93.9 86.4 94.7 96.2",
    ("contrastive", "input"): "66.3 77.1 85.2 82.9 89.3 93.7 75.8 87.8 94.6 87.7 95.9 96.5",
    ("contrastive", "feature"): "67.4 77.9 85.7 85.1 91.1 94.6 77.5 89.1 95.5 89.1 95.7 97.1",
    ("contrastive", "embed"): "66.4 77.6 85.4 83.9 90.3 94.1 76.7 88.6 95.2 88.4 95.4 96.8",
    ("ms", "baseline"): "67.8 77.8 85.6 87.8 92.7 95.3 76.9 89.8 95.9 90.1 97.6 98.4",
    ("ms", "input"): "69.0 79.1 86.0 89.0 93.4 96.0 77.9 90.6 95.9 91.8 98.0 98.9",
    ("ms", "feature"): "71.4 80.6 86.8 89.6 94.2 96.0 81.0 92.0 97.2 92.2 98.5 98.6",
    ("ms", "embed"): "70.2 80.4 86.7 88.8 92.9 95.6 78.5 91.3 96.7 91.9 98.3 98.7",
    ("pa", "baseline"): "69.5 79.3 87.0 87.6 92.3 95.5 79.1 90.8 96.2 90.0 97.4 98.2",
    ("pa", "input"): "70.5 81.2 87.8 88.2 93.2 96.2 79.8 91.4 96.5 90.9 98.1 98.4",
    ("pa", "feature"): "71.0 81.8 88.2 89.1 93.6 96.7 81.3 91.7 96.9 91.9 98.2 98.8",
    ("pa", "embed"): "70.4 81.1 87.9 88.9 93.3 96.4 80.6 91.7 96.6 91.6 98.3 98.3",
    ("proxyncapp", "baseline"): "69.1 79.5 87.7 86.6 92.1 95.4 80.4 91.7 96.7 90.2 97.6 98.4",
    ("proxyncapp", "input"): "69.7 79.9 88.3 87.5 92.9 96.0 80.9 92.2 96.9 91.4 98.1 98.8",
    ("proxyncapp", "feature"): "70.4 80.6 88.7 88.5 93.4 96.5 81.3 92.7 97.1 91.9 98.1 98.8",
    ("proxyncapp", "embed"): "70.2 80.2 88.2 88.1 93.0 96.2 81.1 92.4 97.0 91.6 98.1 98.8",
}
# Table 4.4, likewise
COMPARATORS = {
    "imix-input-contrastive": (
        {"type": "IMix", "level": "input"},
        "65.8 76.2 84.9 82.0 88.5 93.2 75.2 87.3 94.2 87.1 95.4 96.1",
    ),
    "mochi-negneg-contrastive": (
        {"type": "MoCHi", "pairs": "neg-neg"},
        "63.1 74.3 83.8 76.3 84.0 89.3 68.9 83.1 91.8 81.8 91.9 93.9",
    ),
    "mochi-ancneg-contrastive": (
        {"type": "MoCHi", "pairs": "anc-neg"},
        "65.2 75.8 84.2 82.5 88.0 92.9 75.8 87.1 94.8 87.2 92.8 94.9",
    ),
    "proxysynthesis-embed-pa": (
        {"type": "ProxySynthesis"},
        "70.0 79.8 87.2 87.9 92.8 95.6 79.6 90.9 96.4 90.3 97.4 98.0",
    ),
}
# Rows of Tables 4.5 and 4.6 on the page: level, options, and the numbers of both
ABLATIONS = re.findall(
    r"^\| (input|feature|embed) \| (.+?) \| ([\d. /]+) \| ([\d. /]+) \|$", PAGES, re.M
)
OVERRIDES = [(level, options.strip("`")) for level, options, *_ in ABLATIONS if options != "none"]


@cache
def load(name: str) -> Config:
    return Config.fromfile(ROOT / "metrix" / f"{name}.py")


def parts(name: str) -> tuple[str, str, str]:
    """Level or 'baseline', loss and data of a config's name."""
    method, _, _, data = name.split("_")
    *level, loss = method.removeprefix("metrix-").split("-")
    return level[0], loss, data


def small(cfg: Config) -> torch.nn.Module:
    """The model with a small backbone in the place of R-50, and not SOP's 11,318 proxies."""
    init_default_scope(cfg.default_scope)
    loss = copy.deepcopy(cfg.model.loss)
    for part in (loss, loss.get("loss", {})):
        if "num_classes" in part:
            part["num_classes"] = min(part["num_classes"], 100)
    own = {"data_preprocessor": cfg.data_preprocessor, "backbone": SMALL, "loss": loss}
    model = {**cfg.model, **own}
    return MODELS.build(model).train()


def step(model: torch.nn.Module) -> None:
    x = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    samples = [DataSample().set_gt_label(k % 4) for k in range(8)]
    loss = model(x, samples, mode="loss")["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", [*DIGITS, *THESIS])
def test_name_says_what_is_inside(name: str) -> None:
    cfg, (level, loss, data) = load(name), parts(name)
    gpus, batch, epochs = map(int, re.search(r"_(\d+)xb(\d+)-(\d+)e_", name).groups())
    assert (gpus, cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs) == (1, batch, epochs)
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_dataloader.dataset.name == data and data in SOURCES
    inner = cfg.model.loss if level == "baseline" else cfg.model.loss.loss
    if level != "baseline":
        assert (cfg.model.loss.type, cfg.model.loss.level) == ("Metrix", level)
        assert inner == load(name.replace(f"metrix-{level}", "baseline")).model.loss
    assert loss not in TYPES or inner.type == TYPES[loss]
    if "num_classes" in inner:
        assert inner.num_classes == SOURCES[data].counts["train"][1]


@pytest.mark.parametrize("name", CONFIGS)
def test_one_step(name: str) -> None:
    step(small(load(name)))


def test_there_is_a_quick_config_of_every_loss_and_level() -> None:
    own = [e for e in catalog.entries("loss") if e.target.__module__.startswith("mixplug.")]
    losses = {e.name for e in own if issubclass(e.target, PairLoss)}
    missing = losses - {load(n).model.loss.type for n in DIGITS}
    assert not missing, f"mm_configs/metrix has no digits config of {missing}"
    assert {load(n).model.loss.get("level") for n in DIGITS} == {*LEVELS, None}


def assert_quoted(name: str, numbers: str, place: int, data: str, table: str) -> None:
    """Its comment names the numbers and whose they are, and the page too."""
    cell = numbers.split()[3 * place : 3 * place + 3]
    quoted = ", ".join(f"R@{k} {n}" for k, n in zip(SETTINGS[data][-1], cell, strict=False))
    text = (ROOT / "metrix" / f"{name}.py").read_text()
    assert f"# Results of the thesis, not of this code: {quoted} % ({table})\n" in text
    assert f"[{' / '.join(cell)}](metrix/{name}.py)" in PAGES


@pytest.mark.parametrize("method", COMPARATORS)
def test_every_row_of_table_4_4(method: str) -> None:
    """Beside its baseline it has the comparator around the loss and nothing else."""
    settings, numbers = COMPARATORS[method]
    for place, data in enumerate(SETTINGS):
        name = f"{method}_resnet50_1xb100-100e_{data}"
        assert_quoted(name, numbers, place, data, "Table 4.4")
        loss = method.split("-")[-1]
        plain = load(f"baseline-{loss}_resnet50_1xb100-100e_{data}")
        assert load(name).model == {**plain.model, "loss": {**settings, "loss": plain.model.loss}}
    assert len(COMPARED) == 4 * len(COMPARATORS)


@pytest.mark.parametrize(("loss", "level"), ROWS)
def test_every_row_of_table_4_3(loss: str, level: str) -> None:
    """A config for each."""
    for place, data in enumerate(SETTINGS):
        method = "baseline" if level == "baseline" else f"metrix-{level}"
        name = f"{method}-{loss}_resnet50_1xb100-100e_{data}"
        assert name in THESIS
        assert_quoted(name, ROWS[loss, level], place, data, "Table 4.3")
    assert len(THESIS) == 4 * len(ROWS)


@pytest.mark.parametrize("name", [*THESIS, *COMPARED])
def test_settings_of_the_thesis(name: str) -> None:
    cfg, (_, loss, data) = load(name), parts(name)
    rate, decay, decay_of_contrastive, balanced, ks = SETTINGS[data]
    optimizer = dict(type="AdamW", lr=rate, weight_decay=1e-4)
    assert cfg.optim_wrapper.optimizer == optimizer
    assert cfg.param_scheduler.gamma == (decay_of_contrastive if loss == "contrastive" else decay)
    assert cfg.model.backbone.type == "ResNet" and cfg.model.backbone.depth == 50
    assert cfg.model.embedding == {"dim": 512, "pool": "avg+max"}
    sampler = cfg.train_dataloader.sampler
    if balanced:
        assert (sampler.batch_size // sampler.m, sampler.m) == balanced
        assert sampler.type == "mixplug.MPerClassSampler"
    else:
        assert sampler == {"type": "DefaultSampler", "shuffle": True}
    assert cfg.val_evaluator.ks == cfg.test_evaluator.ks == ks
    kinds = [t.type for t in cfg.train_dataloader.dataset.pipeline]
    assert kinds == ["LoadImageFromFile", "RandomResizedCrop", "RandomFlip", "PackInputs"]
    assert [t for t in cfg.test_pipeline if t.type in ("Resize", "CenterCrop")] == [
        {"type": "Resize", "scale": (256, 256)},
        {"type": "CenterCrop", "crop_size": 224},
    ]
    splits = {"inshop": ["query", "gallery", "train"]}.get(data, ["test", "train"])
    tested = cfg.test_dataloader.dataset.datasets
    assert [part.split for part in tested] == splits
    assert all(part.pipeline == cfg.test_pipeline and part.name == data for part in tested)


def test_r50_is_that_of_4_4_1() -> None:
    cfg = load("metrix-feature-ms_resnet50_1xb100-100e_cub200")
    assert cfg.model.backbone.init_cfg.checkpoint == "torchvision://resnet50"
    init_default_scope("mmpretrain")
    model = MODELS.build({**cfg.model, "data_preprocessor": cfg.data_preprocessor}).eval()
    with torch.no_grad():
        assert model.maps(torch.zeros(1, 3, 64, 64)).shape == (1, 2048, 2, 2)
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 512)


@pytest.mark.parametrize(("level", "options"), OVERRIDES)
def test_overrides_of_the_page(level: str, options: str) -> None:
    """Tables 4.5 and 4.6: what they set is there, and steps work."""
    cfg = Config.fromfile(
        ROOT / "metrix" / f"metrix-{level}-contrastive_resnet50_1xb100-100e_cars196.py"
    )
    pairs = [option.split("=", 1) for option in shlex.split(options)]
    cfg.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in pairs})
    cfg.merge_from_dict({"model.embedding.dim": 128})
    model = small(cfg)
    loss = model.loss
    assert model.head.dim == 128
    given = {key.removeprefix("model.loss."): value for key, value in pairs}
    assert loss.levels == tuple(given.get("level", level).strip("[]").split(","))
    assert loss.pairs == ((given["pairs"],) if "pairs" in given else None)
    hardest = {k: v for k, v in given.items() if k.startswith("hardest")}
    assert all(loss.hardest[key.partition(".")[2] or level] == int(k) for key, k in hardest.items())
    loss.hardest = {key: min(k, 4) for key, k in loss.hardest.items()}  # of a batch of eight
    for number in range(2 * len(loss.levels)):
        model.clock.step = number
        model.zero_grad()
        step(model)


def test_every_ablation_is_on_the_page() -> None:
    """Tables 4.5 and 4.6 have 22 rows below the baseline; R@1 of some."""
    assert len(ABLATIONS) == 22
    first = {(level, options.strip("`")): (a[:4], b[:4]) for level, options, a, b in ABLATIONS}
    assert first["input", "model.loss.hardest=1"] == ("82.0", "62.4")
    assert first["feature", "none"] == ("85.1", "64.5")
    assert first["embed", "model.loss.pairs=pos-pos"] == ("78.3", "59.7")
    combined = '"model.loss.level=[input,feature,embed]" model.loss.hardest.input=1'
    assert first["input", combined] == ("85.3", "65.3")


@pytest.mark.parametrize("name", [n for n in DIGITS if "-pa_" in n or "feature" in n])
def test_trains_through_the_runner(name: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(ROOT / "metrix" / f"{name}.py")
    cfg.merge_from_dict(
        {
            "work_dir": str(tmp_path),
            "train_cfg.max_epochs": 1,
            "randomness.seed": 0,
            "log_level": "ERROR",
            "train_dataloader.dataset.indices": 64,
            "val_dataloader.dataset.indices": 64,
        }
    )
    runner = Runner.from_cfg(cfg)
    before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 1 and len(list(tmp_path.glob("best_recall@1_epoch_1.pth"))) == 1
    for key, value in runner.model.named_parameters():
        assert value.isfinite().all() and not torch.equal(value, before[key]), key
