"""Every shipped classification config loads, builds with its mixer, and quotes the thesis."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from reproduce import reproduced

import mixplug
from mixplug import catalog, sampling
from mixplug.hosts.mm.mixing.classifier import train_with

ROOT = Path(__file__).parents[2] / "mm_configs"
OTHERS = (
    "_base_", "card", "detection", "dora", "knn", "linear", "metrix", "office_home",
    "segmentation", "tracking", "wsol",
)  # fmt: skip
CONFIGS = sorted(
    p.relative_to(ROOT).as_posix()
    for p in ROOT.glob("*/*.py")
    if p.parts[-2] not in OTHERS and not p.name.startswith("decoder_")
)
DIGITS = [c for c in CONFIGS if c.endswith("_digits.py")]
IMAGENET = [c for c in CONFIGS if c.endswith("_in1k.py")]
SMALL = [c for c in CONFIGS if c not in IMAGENET]

SIDE = {"digits": 16, "cifar10": 32, "cifar100": 32, "tiny-imagenet": 64, "in1k": 224}
CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "tiny-imagenet": 200, "in1k": 1000}
CIFAR = (2000, [500, 1000, 1500], "SGD", 0.1)
# Sections 3.4.2 and 5.4.1: epochs, decays by 0.1, optimizer and the rate of the classifier.
SCHEDULE = {
    "cifar10": CIFAR,
    "cifar100": CIFAR,
    "tiny-imagenet": (1200, [600, 900], "SGD", 0.1),
    "in1k": (300, [100, 200], "SGD", 0.1),
    "in1k, ViT-S/16": (300, [100, 200], "AdamW", 0.01),
}
# Tables 3.1 and 3.2: error of R-18 and W16-8 on CIFAR-10 and -100, R-18 on TI, R-50 on ImageNet;
# Tables 5.2 and 5.3: accuracy of the same, and of ViT-S/16.
COLUMNS = (
    ("preact-resnet18", "cifar10"),
    ("wrn16-8", "cifar10"),
    ("preact-resnet18", "cifar100"),
    ("wrn16-8", "cifar100"),
    ("preact-resnet18", "tiny-imagenet"),
    ("resnet50", "in1k"),
    ("vit-small-p16", "in1k"),
)
OURS = {
    "alignmix": ("2.95", "3.09", "18.08", "18.67", "31.81", "20.32"),
    "alignmix-ae": ("2.83", "3.15", "17.82", "18.09", "32.73", "18.83"),
    "multimix": ("97.07", "97.06", "81.82", "81.44", "67.11", "78.81", "75.2"),
    "dense-multimix": ("97.09", "97.09", "81.93", "81.77", "68.44", "79.42", "76.1"),
}
ROWS = [
    (method, arch, data, number)
    for method, numbers in OURS.items()
    for (arch, data), number in zip(COLUMNS, numbers, strict=False)
]
# What a step must cover: the branch of the mixer where a config's own settings matter.
BRANCHES = {"AlignMixup": ("A", "reconstruct"), "MultiMix": ("hull",), "DenseMultiMix": ("hull",)}


@cache
def load(name: str) -> Config:
    return Config.fromfile(ROOT / name)


def data_of(name: str) -> str:
    return Path(name).stem.rsplit("_", 1)[1]


def model_of(name: str, **overrides: object) -> torch.nn.Module:
    """Build as the Runner does: preprocessor into the model, then the mixer onto it."""
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    model = MODELS.build({**cfg.model, "data_preprocessor": cfg.data_preprocessor})
    if "mixup" in cfg:
        train_with(model, mixplug.build(cfg.mixup, kind="mixer", **overrides))
    return model.train()


def few(name: str) -> dict[str, int]:
    """Fewer mixed examples than by default."""
    return {"n": 8} if "multimix" in name else {}


def samples(count: int) -> list[DataSample]:
    return [DataSample().set_gt_label(k) for k in range(count)]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_name_matches_the_content(name: str) -> None:
    """<method>_<arch>_<GPUs>xb<batch>-<epochs>e_<data>, in the folder of the method."""
    cfg = load(name)
    _, _, setting, data = Path(name).stem.split("_")
    gpus, batch, epochs = map(int, re.fullmatch(r"(\d+)xb(\d+)-(\d+)e", setting).groups())
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == CLASSES[data]
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert Path(name).stem.startswith(Path(name).parent.name.replace("_", "-"))


@pytest.mark.parametrize("name", CONFIGS)
def test_runs_under_the_stock_tool(name: str) -> None:
    """The tool imports what the config names; after that the Runner knows the key mixup."""
    assert load(name).custom_imports["imports"] == ["mixplug.mm"]
    assert hasattr(Runner, "_mixplug")


@pytest.mark.parametrize("name", CONFIGS)
def test_mixer_is_in_the_catalog(name: str) -> None:
    cfg = load(name)
    assert ("mixup" in cfg) == (not name.startswith("baseline/"))
    if "mixup" in cfg:
        assert catalog.find(cfg.mixup.type, "mixer").name == cfg.mixup.type


OWN = [e for e in catalog.entries("mixer") if e.target.__module__.startswith("mixplug.")]


@pytest.mark.parametrize("entry", OWN, ids=lambda e: e.name)
def test_every_mixer_has_a_digits_config(entry: catalog.Entry) -> None:
    types = [load(name).get("mixup", {}).get("type") for name in DIGITS]
    assert entry.name in types, f"mm_configs has no digits config of {entry.name}."


@pytest.mark.parametrize("method, arch, data, number", ROWS)
def test_every_row_of_the_thesis(method: str, arch: str, data: str, number: str) -> None:
    """There is a config for each number, with a comment that quotes the number and its source."""
    found = [c for c in CONFIGS if re.fullmatch(rf".*/{method}_{arch}_[^_]*_{data}\.py", c)]
    assert len(found) == 1
    table = {"a": "3.2", "m": "5.3", "d": "5.3"} if data == "in1k" else {"a": "3.1"}
    text = (ROOT / found[0]).read_text()
    kind = "error" if method.startswith("align") else "accuracy"
    assert re.search(rf"# the thesis' number, not ours: top-1 {kind} {number}\b", text)
    assert f"(Table {table.get(method[0], '5.2')})" in text
    row = [line for line in reproduced().splitlines() if f"({found[0]})" in line]
    assert len(row) == 1 and number in row[0]


@pytest.mark.parametrize("name", [c for c in CONFIGS if c not in DIGITS])
def test_schedule_of_the_thesis(name: str) -> None:
    cfg = load(name)
    key = f"{data_of(name)}, ViT-S/16" if "_vit-" in name else data_of(name)
    epochs, milestones, kind, rate = SCHEDULE[key]
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.param_scheduler.type == "MultiStepLR" and cfg.param_scheduler.by_epoch
    assert cfg.param_scheduler.milestones == milestones and cfg.param_scheduler.gamma == 0.1
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.type == kind
    if kind == "SGD":
        assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)
    else:
        assert set(optimizer) == {"type", "lr"}  # "AdamW with default parameters" (5.4.1)
    if name in IMAGENET and name.startswith("alignmix/"):
        assert optimizer.lr == pytest.approx(0.01)  # that of the classifier is tested below
    else:
        assert optimizer.lr == rate


def test_two_rates_of_alignmixup_on_imagenet() -> None:
    """3.4.2: 0.1 for the classifier, 0.01 for the other layers, the decoder included."""
    (name,) = (c for c in IMAGENET if c.startswith("alignmix/alignmix-ae"))
    model = model_of(name)
    wrapper = build_optim_wrapper(model, load(name).optim_wrapper)
    rate = {id(p): group["lr"] for group in wrapper.param_groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert any(n.startswith("mixup.") for n in names)
    for n, p in names.items():
        assert rate[id(p)] == pytest.approx(0.1 if n.startswith("head.fc.") else 0.01), n


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_models_build_with_their_mixers(name: str) -> None:
    model = model_of(name)
    assert model.mixer.name == load(name).mixup.type
    assert model.stages.linear.out_features == 1000


@pytest.mark.parametrize("name", IMAGENET)
def test_no_strong_augmentation(name: str) -> None:
    """5.4.1 excludes it for ViT-S/16; for R-50 the thesis names none."""
    cfg = load(name)
    kinds = [t.type for t in cfg.train_dataloader.dataset.pipeline]
    assert kinds == ["LoadImageFromFile", "RandomResizedCrop", "RandomFlip", "PackInputs"]
    assert cfg.model.get("train_cfg") is None
    assert cfg.model.head.loss.type == "CrossEntropyLoss"


@pytest.mark.parametrize("name", SMALL)
def test_one_step(name: str) -> None:
    """Finite loss and gradients on 4 images, in the branches that matter for the config."""
    model = model_of(name, **few(name))
    side = SIDE[data_of(name)]
    x = torch.randn(4, 3, side, side)
    for step in steps(model, x):
        model.zero_grad()
        if hasattr(model, "clock"):
            model.clock.step = step
        loss = model.loss(x, samples(4))["loss"]
        loss.backward()
        assert torch.isfinite(loss)
        grads = [p.grad for p in model.backbone.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in grads)


def steps(model: torch.nn.Module, x: torch.Tensor) -> list[int]:
    """Numbers of the first steps that draw the wanted branches; any step where none is named."""
    mixer = getattr(model, "mixer", None)
    wanted = BRANCHES.get(getattr(mixer, "name", ""), ())
    found: dict[str, int] = {}
    for step in range(100 if wanted else 0):
        found.setdefault(mixer.sample(x, sampling.generators(0, step, 0)).branch, step)
    if getattr(mixer, "learns", False) or not wanted:
        return [found[b] for b in wanted] or [0]
    return [found[wanted[0]]]


@pytest.mark.parametrize("name", [c for c in SMALL if "_wrn16-8_" in c])
def test_wide_resnet_mixes_maps_of_4x4(name: str) -> None:
    """3.4.1 and 5.4.1 use r = 4x4, and the map of WRN-16-8 is 8x8. MultiMix mixes no map."""
    mixup = load(name).mixup
    assert mixup.get("resolution") == (None if mixup.type == "MultiMix" else 4)
    with torch.no_grad():
        (a,) = model_of(name).backbone.eval()(torch.zeros(1, 3, 32, 32))
    assert a.shape[-2:] == (8, 8)


def test_trains_through_the_runner(tmp_path: Path) -> None:
    """One real epoch, with the decoder, whose loss is the one that could diverge."""
    (name,) = (c for c in DIGITS if "alignmix-ae" in c)
    cfg = Config.fromfile(ROOT / name)
    cfg.merge_from_dict(
        {
            "work_dir": str(tmp_path),
            "train_cfg.max_epochs": 1,
            "randomness.seed": 0,
            "log_level": "ERROR",
            "train_dataloader.dataset.indices": 320,
            "val_dataloader.dataset.indices": 64,
        }
    )
    runner = Runner.from_cfg(cfg)
    before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
    runner.train()
    after = dict(runner.model.named_parameters())
    assert runner.epoch == 1 and (tmp_path / "epoch_1.pth").exists()
    for part in ("backbone.conv1.weight", "head.fc.weight", "mixup.decoder.conv.weight"):
        assert torch.isfinite(after[part]).all() and not torch.equal(before[part], after[part])
