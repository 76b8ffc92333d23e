"""DoRA and DINO under mmengine's Runner: teacher, schedules, resume, alarms, evaluation."""

from __future__ import annotations

import copy
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hosts.hosting import mim_tools
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.testing import assert_close

import mixplug.mm  # noqa: F401  registers
from mixplug.data.shipped import shipped_clip
from mixplug.hosts.mm.hooks.self_distillation import DistillationHook
from mixplug.models.self_distillation import Views
from mixplug.models.self_distillation.schedules import cosine
from mixplug.registry import MODELS
from mixplug.video.scan import scan

VIT = {
    "type": "mixplug.TimmBackbone",
    "model_name": "vit_tiny_patch16_224",
    "img_size": 32,
    "depth": 2,
    "embed_dim": 24,
    "num_heads": 4,
    "dynamic_img_size": True,
}
MM_VIT = {
    "type": "mmpretrain.VisionTransformer",
    "arch": {"embed_dims": 24, "num_layers": 2, "num_heads": 4, "feedforward_channels": 48},
    "img_size": 32,
}
MODEL = {
    "type": "mixplug.DoRA",
    "objects": 2,
    "backbone": VIT,
    "head": {"out_dim": 16, "hidden": 24, "bottleneck": 8},
    "schedule": {"ema_decay": (0.9, 1.0), "teacher_temperature": (0.04, 0.07),
                 "warmup_temperature_epochs": 2, "freeze_last_layer_epochs": 1},
}  # fmt: skip
VIEWS = {"large": 32, "small": 16, "smalls": 2}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "bikes.mp4"
    shutil.copy(shipped_clip("bikes"), path)
    scan(path)
    return path


def config_of(video: Path, work: Path, epochs: int = 2, **changes: Any) -> Config:
    """Three steps an epoch, of 2 clips of 2 frames."""
    settings = {
        "default_scope": "mmpretrain",
        "work_dir": str(work),
        "experiment_name": work.name,
        "model": copy.deepcopy(MODEL),
        "train_dataloader": {
            "batch_size": 2,
            "num_workers": 0,
            "persistent_workers": False,
            "sampler": {"type": "mixplug.ClipSampler"},
            "dataset": {"type": "mixplug.VideoClips", "video": str(video), "frames": 2,
                        "interval": 0.2, "crop": 64, "frames_per_epoch": 12, "views": VIEWS},
        },
        "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.01, "weight_decay": 0.04},
                          "clip_grad": {"max_norm": 3.0}},
        "param_scheduler": [{"type": "CosineAnnealingWeightDecay", "eta_min": 0.4, "by_epoch": True,
                             "begin": 0, "end": epochs, "convert_to_iter_based": True}],
        "train_cfg": {"by_epoch": True, "max_epochs": epochs},
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 1},
                          "logger": {"type": "LoggerHook", "interval": 1}},
        "randomness": {"seed": 5},
        "log_level": "WARNING",
    }  # fmt: skip
    config = Config(settings)
    config.merge_from_dict(changes)
    return config


def method(runner: Runner) -> Any:
    return runner.model.method


def watched(runner: Runner) -> list[dict[str, Any]]:
    from mmengine.hooks import Hook

    rows: list[dict[str, Any]] = []

    class Watch(Hook):
        priority = "LOW"

        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            self.old = copy.deepcopy(method(runner).state_dict())

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            m = method(runner)
            rows.append({
                "decay": m.ema_decay, "temperature": m.teacher_temperature,
                "frozen": m.freeze_last_layer, "old": self.old,
                "new": copy.deepcopy(m.state_dict()), "outputs": outputs,
                "weight_decay": runner.optim_wrapper.param_groups[0]["weight_decay"],
            })  # fmt: skip

    runner.register_hook(Watch())
    return rows


def test_a_run_moves_teacher_center_and_numbers(video: Path, tmp_path: Path) -> None:
    runner = Runner.from_cfg(config_of(video, tmp_path / "run"))
    rows = watched(runner)
    runner.train()
    assert len(rows) == 6
    decay = cosine(0.9, 1.0, 6)
    for step, row in enumerate(rows):
        assert row["decay"] == decay(step)
        assert row["temperature"] == pytest.approx(0.04 + 0.03 * min(1, step / 3 / 2))
        assert row["frozen"] == (step < 3)
        for name, new in row["new"].items():
            if name.startswith("teacher.") and new.is_floating_point():
                student = row["new"][name.replace("teacher.", "student.", 1)]
                assert_close(new, decay(step) * row["old"][name] + (1 - decay(step)) * student)
        last = "student.head.last_layer.weight_v"
        assert torch.equal(row["old"][last], row["new"][last]) == (step < 3)
        assert not torch.equal(row["old"]["center"], row["new"]["center"])
        assert {"loss", "loss_object", "loss_local", "teacher_entropy", "teacher_kl",
                "center_norm", "mask_share"} <= row["outputs"].keys()  # fmt: skip
    decays = [row["weight_decay"] for row in rows]
    # half a cosine from 0.04 to 0.4, seen after the scheduler's step, of which the last has none
    wanted = [0.4 - 0.36 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in (1, 2, 3, 4, 5, 5)]
    assert decays == pytest.approx(wanted)


@pytest.mark.parametrize("backbone", [VIT, MM_VIT], ids=["timm", "mmpretrain"])
@pytest.mark.parametrize("kind", ["DoRA", "DINO"])
def test_resumed_at_an_epoch_it_goes_on_bit_for_bit(
    kind: str, backbone: dict, video: Path, tmp_path: Path
) -> None:
    model = {**MODEL, "type": f"mixplug.{kind}", "backbone": backbone}
    if kind == "DINO":
        del model["objects"]
    changes = {"train_dataloader.num_workers": 2, "train_dataloader.persistent_workers": True}
    whole = config_of(video, tmp_path / "whole", **changes)
    whole.model = model
    Runner.from_cfg(whole).train()
    first = config_of(video, tmp_path / "parts", **changes)
    first.model = copy.deepcopy(model)
    runner = Runner.from_cfg(first)
    stop_after(runner, 1)
    second = config_of(video, tmp_path / "parts", **changes)
    second.model, second.resume = copy.deepcopy(model), True
    Runner.from_cfg(second).train()
    a, b = (
        torch.load(tmp_path / name / "epoch_2.pth", weights_only=False)["state_dict"]
        for name in ("whole", "parts")
    )
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("done", [2, 3, 4])
def test_resumed_within_an_epoch_it_goes_on_bit_for_bit(
    done: int, video: Path, tmp_path: Path
) -> None:
    """Clips that were seen are not seen again, and stochastic depth draws what it would have."""

    def config(name: str) -> Config:
        made = config_of(video, tmp_path / name, epochs=2)
        made.model.backbone.drop_path_rate = 0.5
        made.train_dataloader.num_workers = 1
        made.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 1, "by_epoch": False}
        return made

    whole = Runner.from_cfg(config("whole"))
    rows = watched(whole)
    whole.train()
    rest = config("rest")
    rest.resume, rest.load_from = True, str(tmp_path / "whole" / f"iter_{done}.pth")
    resumed = Runner.from_cfg(rest)
    more = watched(resumed)
    torch.manual_seed(done)  # whatever was drawn before
    resumed.train()
    assert [row["outputs"] for row in more] == [row["outputs"] for row in rows[done:]]
    wanted, state = whole.model.state_dict(), resumed.model.state_dict()
    assert [name for name in wanted if not torch.equal(wanted[name], state[name])] == []


def stop_after(runner: Runner, epochs: int) -> None:
    """Train as if interrupted after some epochs of the whole run."""
    loop = runner.train_loop
    run_epoch = loop.run_epoch

    class Interrupted(Exception):
        pass

    def counted() -> None:
        if loop.epoch >= epochs:
            raise Interrupted
        run_epoch()

    loop.run_epoch = counted
    with pytest.raises(Interrupted):
        runner.train()


def test_gradient_accumulation_moves_the_teacher_once(video: Path, tmp_path: Path) -> None:
    config = config_of(video, tmp_path / "run", epochs=1)
    config.optim_wrapper.accumulative_counts = 3
    runner = Runner.from_cfg(config)
    rows = watched(runner)
    runner.train()
    moved = [
        any(not torch.equal(row["old"][n], v) for n, v in row["new"].items()
            if n.startswith("teacher.") or n == "center")
        for row in rows
    ]  # fmt: skip
    assert moved == [False, False, True]


def test_a_loss_that_is_not_finite_names_term_step_and_checkpoint(
    video: Path, tmp_path: Path
) -> None:
    runner = Runner.from_cfg(config_of(video, tmp_path / "run"))
    forward = method(runner).forward

    def broken(views: Views) -> dict:
        terms = forward(views)
        if runner.iter == 4:
            terms["loss_local"] = terms["loss_local"] * math.nan
        return terms

    method(runner).forward = broken
    message = r"loss, loss_local not finite at iteration 5\. Last good checkpoint: .*epoch_1\.pth"
    with pytest.raises(FloatingPointError, match=message):
        runner.train()
    assert not (tmp_path / "run" / "epoch_2.pth").exists()


def test_no_checkpoint_is_written_that_is_not_finite(video: Path, tmp_path: Path) -> None:
    """A gradient that is not, where the loss is: at the last step of the second epoch."""
    runner = Runner.from_cfg(config_of(video, tmp_path / "run"))
    weight = method(runner).student.backbone.norm.weight
    weight.register_hook(lambda g: g * math.nan if runner.iter == 5 else g)
    message = (
        r"method.student.backbone.cls_token, .* more not finite at iteration 6\. "
        r"Last good checkpoint: .*epoch_1\.pth"
    )
    with pytest.raises(FloatingPointError, match=message):
        runner.train()
    assert not (tmp_path / "run" / "epoch_2.pth").exists()
    state = torch.load(tmp_path / "run" / "epoch_1.pth", weights_only=False)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize(("temperature", "said"), [(9.0, "to all outputs alike"), (0.04, None)])
def test_a_collapse_is_said(
    video: Path, tmp_path: Path, temperature: float, said: str | None
) -> None:
    work = tmp_path / f"at_{temperature}"  # loggers of one name and second are one in mmengine
    config = config_of(video, work, epochs=1)
    config.model.schedule = {"teacher_temperature": (temperature, temperature)}
    Runner.from_cfg(config).train()
    (log,) = work.rglob("*.log")
    assert ("The teacher has collapsed" in log.read_text()) == (said is not None)
    assert said is None or said in log.read_text()


def test_weights_of_another_architecture_are_not_loaded_in_part(
    video: Path, tmp_path: Path
) -> None:
    runner = Runner.from_cfg(config_of(video, tmp_path / "run", epochs=1))
    runner.train()
    config = config_of(video, tmp_path / "other", epochs=1)
    config.model.backbone.depth, config.load_from = 3, str(tmp_path / "run" / "epoch_1.pth")
    with pytest.raises(ValueError, match=r"of another architecture.*blocks.2.*none there"):
        Runner.from_cfg(config).train()


def test_the_stock_tool_trains_it(video: Path, tmp_path: Path) -> None:
    config = config_of(video, tmp_path / "work", epochs=1)
    config.dump(tmp_path / "dora.py")
    command = [sys.executable, str(mim_tools() / "train.py"), "dora.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "work" / "epoch_1.pth").is_file()


def test_images_and_neighbors(tmp_path: Path) -> None:
    """DoRA* on digits, and k-NN of the teacher's class tokens every epoch."""
    data = {"type": "mixplug.RetrievalDataset", "name": "digits", "size": 32}
    packed = [{"type": "mmpretrain.PackInputs"}]
    config = config_of(tmp_path, tmp_path / "run", epochs=2)
    config.model.tracking = False
    config.train_dataloader.dataset = {
        **data, "split": "train", "indices": 8,
        "pipeline": [{"type": "mixplug.ViewsTransform", **VIEWS}],
    }  # fmt: skip
    config.train_dataloader.sampler = {"type": "DefaultSampler", "shuffle": True}
    config.val_dataloader = {
        "batch_size": 30,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {
            "type": "ConcatDataset",
            "ignore_keys": "classes",
            "datasets": [
                {**data, "split": "train", "indices": 60, "pipeline": packed},
                {**data, "split": "train", "role": "query", "indices": 90, "pipeline": packed},
            ],
        },
    }
    config.val_evaluator, config.val_cfg = {"type": "mixplug.KNNAccuracy", "k": 1}, {}
    config.train_cfg.val_interval = 1
    config.default_hooks.checkpoint.save_best = "auto"
    runner = Runner.from_cfg(config)
    runner.train()
    assert list((tmp_path / "run").glob("best_knn@1_epoch_*.pth"))
    # 60 of the 90 queries are among the 60 neighbors themselves
    assert 100 * 60 / 90 <= runner.message_hub.get_scalar("val/knn@1").current() <= 100


@pytest.mark.parametrize("kind", ["DoRA", "DINO"])
def test_the_backbone_of_detectors_is_one_of_pretraining_too(kind: str) -> None:
    """What it gives, and its names in checkpoints, are those of a TimmBackbone."""
    init_default_scope("mmpretrain")
    own = {key: value for key, value in VIT.items() if key != "dynamic_img_size"}
    whole = {**own, "type": "mixplug.TimmViT", "out_indices": (-1,), "final_norm": True}
    plain = {**MODEL, "type": f"mixplug.{kind}"}
    if kind == "DINO":
        del plain["objects"]
    model, other = MODELS.build({**plain, "backbone": whole}), MODELS.build(plain)
    model.load_state_dict(other.state_dict(), strict=True)
    x = torch.rand(2, 3, 48, 32)
    assert torch.equal(model(x), other(x))
    with pytest.raises(
        ValueError, match=r"A complete VisionTransformer is needed, got a TimmViT with"
    ):
        MODELS.build({**plain, "backbone": {**whole, "window": 2}})


def test_what_is_wrong_is_said() -> None:
    init_default_scope("mmpretrain")
    with pytest.raises(KeyError, match=r"DoRA has no key 'object'. Did you mean 'objects'"):
        MODELS.build({**MODEL, "object": 3})
    with pytest.raises(ValueError, match="DoRA needs objects between 1 and the 4 heads"):
        MODELS.build({**MODEL, "objects": 5})
    with pytest.raises(ValueError, match="VisionTransformer, got ResNet"):
        MODELS.build({**MODEL, "backbone": {"type": "mmpretrain.ResNet", "depth": 18}})
    model = MODELS.build(MODEL)
    with pytest.raises(ValueError, match=r"needs mode 'loss' with views.*got 'loss'"):
        model(torch.rand(2, 3, 32, 32), mode="loss")
    for keys, message in (
        ({"ema_decay": (0.9, 1.1)}, r"ema_decay between 0 and 1, got \(0.9, 1.1\)"),
        ({"teacher_temperature": (0, 1)}, "teacher_temperature between"),
        ({"freeze_last_layer_epochs": -1}, "freeze_last_layer_epochs between 0 and inf"),
    ):
        with pytest.raises(ValueError, match=message):
            DistillationHook(**keys)
