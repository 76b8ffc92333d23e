"""What the host tests share: mixers, scripts run in this process, configs for mm's Runner."""

from __future__ import annotations

import csv
import os
import runpy
import shlex
import sys
import uuid
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm.data
import timm.task
import torch

import mixplug

HERE = Path(__file__).parent


def timm_scripts() -> list[Path]:
    """Our script, and timm's own where MIXPLUG_TIMM_TRAIN names it."""
    given = os.environ.get("MIXPLUG_TIMM_TRAIN")
    return [HERE / "train.py", *([Path(given)] if given else [])]


def variants() -> dict[str, dict[str, Any]]:
    """Every mixer of the catalog, and AlignMixup with its two decoders."""
    plain = {entry.alias: {} for entry in mixplug.entries("mixer") if _ours(entry)}
    ways = {name: {"decoder": name, "image_shape": (3, 16, 16)} for name in ("ae", "vae")}
    return {**plain, **{f"alignmix-{name}": settings for name, settings in ways.items()}}


def _ours(entry: mixplug.catalog.Entry) -> bool:
    return entry.target.__module__.startswith("mixplug.")


class TimmRun:
    """What a run of train.py left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "summary.csv").open() as file:
            self.rows = list(csv.DictReader(file))

    @property
    def checkpoint(self) -> dict[str, Any]:
        path = self.folder / "last.pth.tar"
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)

    @property
    def state(self) -> dict[str, Any]:
        return self.checkpoint["task_state"]["mixplug"]

    def column(self, name: str) -> list[float]:
        return [float(row[name]) for row in self.rows]


TIMM_FLAGS = shlex.split(
    "--model test_resnet --num-classes 10 --img-size 64 -b 32 -j 0 --opt adamw --lr 2e-3 "
    "--epochs 1 --warmup-epochs 0 --no-aug --device cpu"
)


@contextmanager
def own_process() -> Iterator[pytest.MonkeyPatch]:
    """What a script changes in its interpreter is put back afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(sys.argv))
        patch.setattr(sys, "path", list(sys.path))
        tasks = ("ClassificationTask", "MultiLabelClassificationTask", "resume_task_checkpoint")
        for module, names in ((timm.task, tasks), (timm.data, ("create_loader",))):
            for name in names:
                if hasattr(module, name):
                    patch.setattr(module, name, getattr(module, name))
        yield patch


def run_tool(name: str, *argv: object) -> None:
    """A stock tool of mmpretrain, as ``python tools/NAME ARGV`` would run it, in this process."""
    tool = str(mim_tools() / name)
    with own_process() as patch:
        patch.setattr(sys, "argv", [tool, *map(str, argv)])
        runpy.run_path(tool, run_name="__main__")


def mim_tools() -> Path:
    """The folder of mmpretrain's stock tools."""
    import mmpretrain

    return Path(mmpretrain.__file__).parent / ".mim" / "tools"


def mm_config(work_dir: Path, mixup: object = None, epochs: int = 1, **changes: Any) -> Any:
    """A config of a small network on digits of 8x8, randomly cropped and flipped, in 4 batches."""
    from mmengine.config import Config

    def loader(split: str, count: int, pipeline: list[dict]) -> dict:
        return {
            "batch_size": 16,
            "num_workers": 0,
            "persistent_workers": False,
            "sampler": {"type": "DefaultSampler", "shuffle": split == "train"},
            "dataset": {
                "type": "mixplug.Digits",
                "split": split,
                "size": 8,
                "indices": count,
                "pipeline": pipeline,
            },
        }

    augmented = [
        {"type": "RandomCrop", "crop_size": 8, "padding": 1},
        {"type": "RandomFlip", "prob": 0.5, "direction": "horizontal"},
        {"type": "PackInputs"},
    ]
    config = Config(
        {
            "default_scope": "mmpretrain",
            "work_dir": str(work_dir),
            "experiment_name": uuid.uuid4().hex,
            "model": mm_classifier(),
            "train_dataloader": loader("train", 64, augmented),
            "val_dataloader": loader("test", 50, [{"type": "PackInputs"}]),
            "val_evaluator": {"type": "Accuracy", "topk": (1,)},
            "val_cfg": {},
            "train_cfg": {"by_epoch": True, "max_epochs": epochs, "val_interval": 1},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.005, "momentum": 0.9}},
            "param_scheduler": {"type": "MultiStepLR", "by_epoch": True, "milestones": [1, 2]},
            "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 1}},
            "randomness": {"seed": 3},
            "log_level": "WARNING",
        }
    )
    if mixup is not None:
        config.mixup = mixup
    config.merge_from_dict(changes)
    return config


def mm_classifier(**changes: Any) -> dict[str, Any]:
    """The network of :func:`mm_config`."""
    return {
        "type": "ImageClassifier",
        "data_preprocessor": {"num_classes": 10, "mean": [78] * 3, "std": [85] * 3},
        "backbone": {"type": "mixplug.WideResNet", "depth": 10, "widen_factor": 1},
        "neck": {"type": "GlobalAveragePooling"},
        "head": {
            "type": "LinearClsHead",
            "num_classes": 10,
            "in_channels": 64,
            "loss": {"type": "CrossEntropyLoss", "loss_weight": 1.0},
        },
        **changes,
    }
