"""The mm registries: a file in their packages is found, a fault in it shows, scores know better."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, EarlyStoppingHook

import mixplug
import mixplug.mm
from mixplug import catalog, registry

ROOMS = ("datasets", "evaluation", "hooks", "models")

NEW_FILES = {
    "evaluation": """
from mmengine.evaluator import BaseMetric
from mixplug.registry import METRICS

@METRICS.register_module()
class Gap(BaseMetric):
    default_prefix = ""
    lower_is_better = ("gap",)

    def process(self, data_batch, data_samples):
        self.results += [float(sample) for sample in data_samples]

    def compute_metrics(self, results):
        return {"gap": sum(results) / len(results)}
""",
    "datasets": """
import torch
from mixplug.registry import DATASETS, DATA_SAMPLERS, TRANSFORMS
from torch.utils.data import Dataset, SequentialSampler

@DATASETS.register_module()
class Ones(Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"x": torch.ones(2)}

@DATA_SAMPLERS.register_module()
class InOrder(SequentialSampler):
    def __init__(self, dataset, seed=None):
        super().__init__(dataset)

@TRANSFORMS.register_module()
class Nothing:
    pass
""",
    "models": """
import torch
from mmengine.model import BaseModel
from mixplug.registry import MODELS

@MODELS.register_module()
class Falling(BaseModel):
    '''Its prediction falls from epoch to epoch.'''

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(2))

    def forward(self, x, mode="tensor"):
        y = (self.w * torch.stack(x).mean(0)).sum()
        return {"loss": y} if mode == "loss" else [y]
""",
    "hooks": """
from mmengine.hooks import Hook
from mixplug.registry import HOOKS

@HOOKS.register_module()
class Says(Hook):
    def after_val_epoch(self, runner, metrics=None):
        print("said", metrics["gap"])
""",
}
EXTEND = """
import sys
from importlib import import_module

for room in ("datasets", "evaluation", "hooks", "models"):
    import_module(f"mixplug.hosts.mm.{room}").__path__.append(f"{sys.argv[1]}/{room}")
"""
TRAIN = """
from mmengine.config import Config
from mmengine.runner import Runner

loader = dict(
    batch_size=2, sampler=dict(type="mixplug.InOrder"), dataset=dict(type="mixplug.Ones", count=4))
Runner.from_cfg(Config(dict(
    model=dict(type="mixplug.Falling"),
    work_dir=sys.argv[1] + "/work",
    default_scope="mmengine",
    train_dataloader=loader,
    val_dataloader=loader,
    train_cfg=dict(by_epoch=True, max_epochs=3),
    val_cfg=dict(),
    optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
    val_evaluator=dict(type="mixplug.Gap"),
    default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_best="auto")),
    custom_hooks=[dict(type="mixplug.Says")],
))).train()
from mixplug.registry import TRANSFORMS
print(TRANSFORMS.get("mixplug.Nothing").__name__)
"""


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", EXTEND + code, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file for each package, in folders that a test adds to the packages' paths."""
    for room, code in NEW_FILES.items():
        (tmp_path / room).mkdir()
        (tmp_path / room / "something_new.py").write_text(code)
    return tmp_path


def test_new_files_are_found_without_a_list(folder: Path) -> None:
    """By a real Runner, from types alone; 'auto' saves the checkpoint with the lowest score."""
    done = run(folder, TRAIN)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [float(line.split()[1]) for line in done.stdout.splitlines() if line[:4] == "said"]
    assert len(said) == 3 and said == sorted(said, reverse=True)
    assert [p.name for p in (folder / "work").glob("best_*")] == ["best_gap_epoch_3.pth"]
    assert done.stdout.rstrip().endswith("Nothing")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def broken(:", "SyntaxError: "),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_fault_in_one_file_is_raised_and_names_the_file(
    folder: Path, fault: str, cause: str
) -> None:
    """mmengine hides an ImportError of mixplug.registry, not of what is imported at a look-up."""
    (folder / "evaluation" / "something_new.py").write_text(f"{fault}\n")
    code = "from mmengine.registry import METRICS\nMETRICS.build(dict(type='mixplug.RecallAtK'))"
    done = run(folder, code)
    assert done.returncode == 1
    assert (
        "ImportError: mixplug.hosts.mm.evaluation.something_new cannot be imported, so nothing of "
        f"mixplug.hosts.mm.evaluation can be used. {cause}"
    ) in done.stderr


PLUGIN = """
from mmengine.evaluator import BaseMetric
from mixplug.registry import METRICS

@METRICS.register_module()
class TheirScore(BaseMetric):
    '''A score of another package, in percent.'''

    lower_is_better = ("their_score",)

    def process(self, data_batch, data_samples): ...
    def compute_metrics(self, results): ...
"""
USE_PLUGIN = """
sys.path.insert(0, sys.argv[1])
from mmengine.hooks import CheckpointHook
from mmengine.registry import METRICS
print(type(METRICS.build(dict(type="mixplug.TheirScore"))).__name__)
import mixplug.mm
print(CheckpointHook(save_best="their_score").rules[0])
from mixplug.overview import find
print(find("TheirScore")[0].summary)
"""


def test_an_evaluator_of_a_plugin_is_found_listed_and_ranked(folder: Path) -> None:
    """By the entry-point group alone: nothing imports the package by name."""
    (folder / "their_package.py").write_text(PLUGIN)
    info = folder / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mixplug.plugins]\ntheirs = their_package\n")
    done = run(folder, USE_PLUGIN)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-3:] == [
        "TheirScore", "less", "A score of another package, in percent.",
    ]  # fmt: skip


def test_the_registry_itself_imports_mmengine_alone() -> None:
    code = (
        "import sys, mixplug.registry\n"
        "print([m for m in ('torchvision', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'timm')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def of_ours(child: registry.Registry) -> dict[str, type]:
    """Tests register classes too, and after those of the package went into the root."""
    return {n: c for n, c in child.module_dict.items() if c.__module__.startswith("mixplug.")}


@pytest.mark.parametrize("child", registry.REGISTRIES, ids=lambda child: child.name)
def test_all_names_are_in_the_root_and_under_the_prefix(child: registry.Registry) -> None:
    assert of_ours(child)
    for name, target in of_ours(child).items():
        assert child.parent.get(f"mixplug.{name}") is target
        if name != "Pretrained":  # mmengine's own
            assert child.parent.get(name) is target


@pytest.mark.parametrize("child", registry.REGISTRIES, ids=lambda child: child.name)
def test_every_class_lies_in_the_package_of_its_kind(child: registry.Registry) -> None:
    """Else a config that names nothing else of mixplug would not find it."""
    package = "mixplug.hosts.mm.models" if child is registry.MODELS else child.location
    for target in of_ours(child).values():
        assert target.__module__.startswith(f"{package}."), target


EVALUATORS = {
    name: metric
    for name, metric in registry.METRICS.module_dict.items()
    if name != "InDistribution"  # whose scores are those of another
}


@pytest.mark.parametrize("name", EVALUATORS)
def test_every_evaluator_says_which_scores_are_better(name: str) -> None:
    metric = EVALUATORS[name]
    higher = getattr(metric, "higher_is_better", ())
    lower = getattr(metric, "lower_is_better", ())
    assert issubclass(metric, BaseMetric) and higher + lower
    assert isinstance(higher, tuple) and isinstance(lower, tuple) and not {*higher} & {*lower}


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("recall@1", "greater"), ("nmi", "greater"), ("map@r", "greater"), ("knn@20", "greater"),
        ("alignment", "less"), ("utilization_mixed", "less"), ("mAO", "greater"),
        ("mSR@0.5", "greater"), ("h_score", "greater"), ("ece_scaled", "less"), ("fpr95", "less"),
        ("det_acc_best", "greater"), ("apgd_error", "less"), ("energy/auroc", "greater"),
    ],
)  # fmt: skip
def test_hooks_learn_the_directions_from_the_classes(key: str, rule: str) -> None:
    assert CheckpointHook(save_best=key).rules == [rule]
    assert EarlyStoppingHook(monitor=key).rule == rule


def test_an_evaluator_of_another_package_is_learned_when_a_runner_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry.METRICS, "_module_dict", dict(registry.METRICS.module_dict))
    for hook in (CheckpointHook, EarlyStoppingHook):
        for which in ("_default_greater_keys", "_default_less_keys"):
            monkeypatch.setattr(hook, which, list(getattr(hook, which)))

    @registry.METRICS.register_module()
    class Surprise(BaseMetric):
        lower_is_better = ("surprise",)

    with pytest.raises(ValueError, match="surprise"):
        CheckpointHook(save_best="surprise")
    mixplug.mm.learn_score_directions()
    mixplug.mm.learn_score_directions()
    assert CheckpointHook(save_best="surprise").rules == ["less"]
    assert CheckpointHook._default_less_keys.count("surprise") == 1


BOTH = sorted(
    {entry.name for entry in catalog.entries()}
    & {name for child in registry.REGISTRIES for name in child.module_dict}
)


def mm_class(name: str) -> type:
    (found,) = (c.module_dict[name] for c in registry.REGISTRIES if name in c.module_dict)
    return found


def test_names_with_a_torch_class_and_an_mm_class() -> None:
    assert BOTH == ["DINO", "DoRA", "RecallAtK", "TimmViT", "ViTPyramid"]


@pytest.mark.parametrize("name", [n for n in BOTH if catalog.find(n).kind != "metric"])
def test_an_mm_class_is_or_holds_the_torch_class_of_its_name(name: str) -> None:
    """So that a name stands for one behavior, with the base class of the host added."""
    torch_class, wrapped = catalog.find(name).target, mm_class(name)
    held = getattr(wrapped, "method_name", None) or getattr(wrapped, "method_class", None)
    assert issubclass(wrapped, torch_class) or catalog.resolve(held) is torch_class


@pytest.mark.parametrize("name", [n for n in BOTH if catalog.find(n).kind == "metric"])
def test_a_score_has_one_unit_under_one_name(name: str) -> None:
    """Torch's class and mm's give the same numbers for the same data, by the same keys."""
    torch.manual_seed(0)
    embeddings, labels = torch.randn(24, 4), torch.arange(24) % 4
    keys = {"ks": (1, 3), "scores": "all"}
    plain = mixplug.build(name, **keys)
    plain.update(embeddings, labels)
    evaluator = registry.METRICS.build({"type": f"mixplug.{name}", **keys})
    evaluator.process(
        None,
        [{"pred_embedding": e, "gt_label": y} for e, y in zip(embeddings, labels, strict=True)],
    )
    found = evaluator.compute_metrics(evaluator.results)
    assert found == plain.compute() and found["recall@3"] > 1
    shared = catalog.keys_of(catalog.find(name).target)
    of_mm = {p.name: p.default for p in inspect.signature(type(evaluator)).parameters.values()}
    assert shared.items() <= of_mm.items()


def test_no_two_registries_share_a_name() -> None:
    names = [name for child in registry.REGISTRIES for name in child.module_dict]
    assert len(names) == len(set(names))
