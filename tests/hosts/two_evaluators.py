"""Evaluators of reliability on digits among noise, alone or on one of two ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from hosts.hosting import mm_config

PACKED = [{"type": "PackInputs"}]


def with_noise(digits: int, noise: int) -> dict[str, Any]:
    """Config of a data set of both."""
    return {
        "type": "ConcatDataset",
        "ignore_keys": "classes",
        "datasets": [
            {"type": "mixplug.Digits", "split": "test", "size": 8, "indices": digits,
             "pipeline": PACKED},
            {"type": "mixplug.OODNoise", "count": noise, "size": 8, "pipeline": PACKED},
        ],
    }  # fmt: skip


def evaluated(folder: Path, **changes: Any) -> dict[str, float]:
    """What evaluators find of an untrained network: 51 images, so that one of two ranks has one
    twice."""
    from mmengine.runner import Runner
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    config = mm_config(folder, **changes)
    config.custom_imports = {"imports": ["mixplug.mm"]}
    config.val_dataloader.dataset = with_noise(40, 11)
    config.val_evaluator = [
        {"type": "mixplug.RobustAccuracy", "eps": 2 / 255},
        {"type": "mixplug.CalibrationError", "temperature_scaling": True},
        {"type": "mixplug.OODDetection"},
        {"type": "mixplug.EmbeddingQuality"},
        {"type": "mixplug.InDistribution", "metric": {"type": "Accuracy", "topk": (1, 3)}},
    ]
    if changes:
        for metric in config.val_evaluator:
            metric["collect_dir"] = str(folder / "collected")
    for split in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"):
        config.pop(split)
    runner = Runner.from_cfg(config)
    torch.manual_seed(5)
    for parameter in runner.model.parameters():  # the same on each rank
        torch.nn.init.normal_(parameter, std=0.3)
    return runner.val()


def work(rank: int, out: Path) -> dict[str, float]:
    """The same on rank ``rank`` of 2."""
    os.environ["LOCAL_RANK"] = str(rank)  # mmengine reads it, for its device
    return evaluated(
        out / "both",
        launcher="pytorch",
        model_wrapper_cfg={"type": "MMDistributedDataParallel", "device_ids": None},
        experiment_name="two_evaluators",
    )
