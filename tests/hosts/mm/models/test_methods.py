"""Models of OpenMMLab that are made from the catalog, also of methods of other packages."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distilling import HEAD, PATCH_HEAD
from extending import blocks, ibot
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS as ROOT
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import mixplug
import mixplug.mm
from mixplug import catalog
from mixplug.hosts.mm.hooks.self_distillation import DistillationHook
from mixplug.hosts.mm.models import self_distillation
from mixplug.models import DINO
from mixplug.registry import MODELS

VIT = {
    "type": "mixplug.TimmBackbone", "model_name": "vit_tiny_patch16_224", "img_size": 32,
    "depth": 2, "embed_dim": 24, "num_heads": 4, "dynamic_img_size": True,
}  # fmt: skip
IBOT = {
    "type": "mixplug.IBOT", "backbone": VIT, "head": HEAD, "patch_head": PATCH_HEAD,
    "mask_ratio": (0.3, 0.5),
    "schedule": {"teacher_temperature": {"cls": (0.1, 0.2), "patch": (0.3, 0.1)},
                 "warmup_temperature_epochs": 2, "ema_decay": (0.9, 0.9)},
}  # fmt: skip


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope("mmpretrain")


@pytest.fixture
def method(tmp_path: Path) -> Iterator[type]:
    """IBOT of the docs, registered and nothing more."""
    with ibot(tmp_path) as kind:
        yield kind


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names that a test registers, which are forgotten afterwards."""
    catalog.entries()
    monkeypatch.setattr(catalog, "_table", dict(catalog._table))
    names: list[str] = []
    yield names
    for name in names:
        MODELS.module_dict.pop(name, None), ROOT.module_dict.pop(name, None)


@pytest.mark.parametrize("entry", catalog.entries("selfsup"), ids=lambda entry: entry.name)
def test_every_method_has_a_model_with_its_keys(entry: catalog.Entry) -> None:
    model = MODELS.get(entry.name)
    assert model.method_class is entry.target and ROOT.get(entry.name) is model
    own = ["backbone", "schedule", "data_preprocessor", "init_cfg"]
    found = catalog.keys_of(model)
    assert list(found) == [*own, *(key for key in entry.defaults if key not in own)]
    assert all(found[key] == entry.defaults[key] for key in entry.defaults if key not in own)
    assert not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(model).parameters.values())
    assert pickle.loads(pickle.dumps(model)) is model
    assert getattr(self_distillation, entry.name) is model
    assert entry.name in dir(self_distillation)
    assert model.__name__ == entry.name and "schedule: keys of" in model.__doc__


@pytest.mark.parametrize("name", ["DINO", "DoRA"])
def test_the_text_of_a_model_has_every_key_once(name: str) -> None:
    model = MODELS.get(name)
    assert model.__doc__.startswith(catalog.find(name).target.__doc__.partition("\n")[0])
    for key in catalog.keys_of(model):
        assert model.__doc__.count(f"\n    {key}: ") == 1, key


def test_unknown_keys_are_errors_with_a_suggestion() -> None:
    for key, near in (
        ("schedul", "schedule"),
        ("objekts", "objects"),
        ("center_deca", "center_decay"),
    ):
        with pytest.raises(KeyError, match=rf"DoRA has no key '{key}'. Did you mean '{near}'\?"):
            MODELS.build({"type": "mixplug.DoRA", "backbone": VIT, "head": HEAD, key: 1})
    with pytest.raises(AttributeError, match="has no attribute 'DoRa'"):
        _ = self_distillation.DoRa


def test_a_method_that_is_only_registered(registered: list[str]) -> None:
    @mixplug.register("Mine", kind="selfsup", reference="ours")
    class Mine(DINO):
        """A method.

        Args:
            backbone: of the student.
            strength: of something.
        """

        def __init__(self, backbone: Any, strength: float = 0.5, **settings: Any) -> None:
            super().__init__(backbone, **settings)
            self.strength = strength

    registered.append("Mine")
    assert catalog.find("Mine").hosts == ("mm", "torch")
    for name in ("mixplug.Mine", "Mine"):
        model = MODELS.build({"type": name, "backbone": VIT, "head": HEAD, "strength": 2})
        assert type(model.method) is Mine and model.method.strength == 2
    with pytest.raises(KeyError, match=r"Mine has no key 'strenght'. Did you mean 'strength'\?"):
        MODELS.build({"type": "mixplug.Mine", "backbone": VIT, "strenght": 2})
    first = MODELS.get("Mine")
    mixplug.register("Mine", kind="selfsup", reference="ours")(Mine)  # as when it is reloaded
    assert MODELS.get("Mine") is not first and MODELS.get("Mine") is ROOT.get("Mine")


def test_a_name_that_a_model_has_already(registered: list[str]) -> None:
    """It stays that of the model, and the method is known to the catalog alone."""
    known, kind = MODELS.get("MetricLearner"), type("Other", (DINO,), {})
    message = (
        r"'MetricLearner' has no model in OpenMMLab, because mixplug.MetricLearner is mixplug\."
    )
    with pytest.warns(UserWarning, match=message):
        mixplug.register("MetricLearner", kind="selfsup")(kind)
    assert MODELS.get("MetricLearner") is known is ROOT.get("MetricLearner")
    assert catalog.find("MetricLearner").target is kind


def config_of(work: Path, **changes: Any) -> Config:
    """Two steps of four images, a checkpoint after each."""
    config = Config({
        "default_scope": "mmpretrain",
        "work_dir": str(work),
        "experiment_name": work.name,
        "custom_imports": {"imports": ["ibot"]},
        "model": copy.deepcopy(IBOT),
        "train_dataloader": {
            "batch_size": 4, "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "dataset": {"type": "mixplug.RetrievalDataset", "name": "digits", "size": 32,
                        "split": "train", "indices": 8,
                        "pipeline": [{"type": "mixplug.ViewsTransform", "large": 32, "small": 16,
                                      "smalls": 2}]},
        },
        "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.01}},
        "train_cfg": {"by_epoch": True, "max_epochs": 1},
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 1,
                                         "by_epoch": False}},
        "randomness": {"seed": 5},
        "log_level": "WARNING",
    })  # fmt: skip
    config.merge_from_dict(changes)
    return config


def watched(runner: Runner) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    class Watch(Hook):
        priority = "LOW"

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            targets = runner.model.method.targets
            temperatures = {name: one.teacher_temperature for name, one in targets.items()}
            rows.append({"outputs": outputs, "temperatures": temperatures})

    runner.register_hook(Watch())
    return rows


def test_a_third_party_s_method_runs_and_resumes(method: type, tmp_path: Path) -> None:
    """The same bits, and temperatures of each target by the schedule."""
    whole = Runner.from_cfg(config_of(tmp_path / "whole"))
    assert type(whole.model.method) is method
    before = copy.deepcopy(whole.model.state_dict())
    rows = watched(whole)
    whole.train()
    assert len(rows) == 2
    assert "loss_patch" in rows[0]["outputs"] and "teacher_entropy_patch" in rows[0]["outputs"]
    assert rows[0]["temperatures"] == pytest.approx({"cls": 0.1, "patch": 0.3})
    assert rows[1]["temperatures"] == pytest.approx({"cls": 0.125, "patch": 0.25})
    state = whole.model.state_dict()
    trained = [
        "student.mask_token", "center_patch", "center", "teacher.backbone.cls_token",
        "student.heads.patch.mlp.0.weight", "teacher.heads.patch.mlp.0.weight",
    ]  # fmt: skip
    for name in trained:
        assert not torch.equal(state[f"method.{name}"], before[f"method.{name}"]), name
    rest = config_of(tmp_path / "rest")
    rest.resume, rest.load_from = True, str(tmp_path / "whole" / "iter_1.pth")
    resumed = Runner.from_cfg(rest)
    more = watched(resumed)
    resumed.train()
    assert [row["outputs"] for row in more] == [rows[1]["outputs"]]
    again = resumed.model.state_dict()
    assert again.keys() == state.keys()
    assert [name for name in state if not torch.equal(state[name], again[name])] == []
    # the config that the Runner has written names every target, and can be read
    written = Config.fromfile(next((tmp_path / "whole").rglob("vis_data/config.py")))
    assert written.model.schedule.teacher_temperature.patch == (0.3, 0.1)


def test_the_config_of_the_page(method: type) -> None:
    config: dict[str, Any] = {}
    exec(blocks()[2], config)
    model = config["model"]
    model["backbone"] |= VIT
    model["head"], model["patch_head"] = HEAD, PATCH_HEAD
    built = MODELS.build(model)
    assert built.hook.teacher_temperature == {"cls": (0.04, 0.07), "patch": (0.04, 0.07)}
    assert built.hook.warmup_temperature_epochs == {"cls": 30, "patch": 30}


def test_a_target_that_the_method_does_not_have(method: type, tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    config.model.schedule = {"teacher_temperature": {"pach": (0.1, 0.1)}}
    with pytest.raises(KeyError, match=r"IBOT has no target 'pach', .* Did you mean 'patch'"):
        Runner.from_cfg(config).train()


def test_a_collapse_names_the_target(method: type, tmp_path: Path) -> None:
    config = config_of(tmp_path / "collapsed")
    config.model.schedule = {"teacher_temperature": {"cls": (0.5, 0.5), "patch": (99.0, 99.0)}}
    Runner.from_cfg(config).train()
    (log,) = (tmp_path / "collapsed").rglob("*.log")
    assert "to all outputs alike for the target 'patch': its entropy is 1.6" in log.read_text()
    assert "for the target 'cls'" not in log.read_text()


def test_temperatures_of_a_schedule() -> None:
    assert DistillationHook().teacher_temperature == {}
    assert DistillationHook(teacher_temperature=(0.1, 0.2)).teacher_temperature == {
        "cls": (0.1, 0.2)
    }
    both = DistillationHook(
        teacher_temperature={"cls": (0.1, 0.2), "patch": (0.3, 0.4)},
        warmup_temperature_epochs={"patch": 7},
    )
    assert both.warmup_temperature_epochs == {"patch": 7}
    for keys, message in (
        ({"teacher_temperature": {"patch": (0, 1)}}, r"teacher_temperature between .*got \(0, 1\)"),
        ({"teacher_temperature": {"a": (1, 1)}, "warmup_temperature_epochs": {"a": -1}},
         r"warmup_temperature_epochs between 0 and inf, got \(-1,\)"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            DistillationHook(**keys)


def test_without_a_schedule_the_method_keeps_its_temperature(method: type, tmp_path: Path) -> None:
    config = config_of(tmp_path / "kept")
    config.model.schedule, config.model.teacher_temperature = {}, 0.33
    runner = Runner.from_cfg(config)
    rows = watched(runner)
    runner.train()
    assert rows[1]["temperatures"] == {"cls": 0.33, "patch": 0.07}
