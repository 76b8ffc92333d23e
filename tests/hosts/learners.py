"""Metric learners on digits for mm's Runner, and what one of two processes does with one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hosts.hosting import mm_config
from torch import Tensor

MS = {"type": "MultiSimilarity"}
PA = {"type": "ProxyAnchor", "num_classes": 5}
LEVELS = ("input", "feature", "embed")
SCORES = ("recall", "map_at_r", "alignment")
EVALUATED = 37 + 22 + 26  # images: odd, so that one rank gets an image twice


def metrix(loss: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"type": "Metrix", "loss": loss, **settings}


def learner(loss: Any = MS, **changes: Any) -> dict[str, Any]:
    """Config of a model."""
    return {
        "type": "mixplug.MetricLearner",
        "data_preprocessor": {"mean": [78] * 3, "std": [85] * 3},
        "backbone": {"type": "mixplug.WideResNet", "depth": 10, "widen_factor": 1},
        "embedding": {"dim": 16},
        "loss": loss,
        **changes,
    }


def data(split: str, count: int | list[int], pipeline: list[dict], **more: Any) -> dict[str, Any]:
    return {
        "type": "mixplug.RetrievalDataset",
        "name": "digits",
        "split": split,
        "size": 8,
        "indices": count,
        "pipeline": pipeline,
        **more,
    }


def metric_config(work_dir: Path, loss: Any = MS, epochs: int = 1, **changes: Any) -> Any:
    """4 batches of 15 digits from 0 to 4; tested on those from 5 to 9 as In-Shop is."""
    config = mm_config(work_dir, None, epochs)
    packed = [{"type": "PackInputs"}]
    config.model = learner(loss)
    augmented = config.train_dataloader.dataset.pipeline
    config.train_dataloader.batch_size = 15
    config.train_dataloader.dataset = data("train", 60, augmented)
    config.val_dataloader.batch_size = 16
    gallery = list(range(100, 122))
    config.val_dataloader.dataset = {
        "type": "ConcatDataset",
        "ignore_keys": "classes",
        "datasets": [
            data("test", 37, packed),
            data("test", gallery, packed, role="gallery"),
            data("train", 26, packed),
        ],
    }
    config.val_evaluator = {"type": "mixplug.RecallAtK", "ks": (1, 4), "scores": "all"}
    config.optim_wrapper = {"optimizer": {"type": "AdamW", "lr": 0.003}}
    config.default_hooks.checkpoint.save_best = "auto"
    config.merge_from_dict(changes)
    return config


def work(rank: int, out: Path) -> dict[str, Any]:
    """Train and test on rank ``rank`` of 2."""
    from mmengine.runner import Runner
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    os.environ["LOCAL_RANK"] = str(rank)  # mmengine reads it, for its device
    config = metric_config(out / "work", metrix(PA, level=LEVELS), epochs=2)
    config.train_cfg.val_interval = 9
    config.default_hooks.checkpoint.save_best = None
    config.val_evaluator.scores = SCORES
    config.launcher = "pytorch"
    config.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
    config.experiment_name = "two_ranks"
    config.val_evaluator.collect_dir = str(out / "collected")
    runner = Runner.from_cfg(config)
    levels, lams = spied()
    runner.train()
    for buffer in runner.model.buffers():  # every rank has BatchNorm's of its own
        dist.broadcast(buffer, 0)
    return {
        "levels": levels,
        "lams": lams,
        "seed": runner.seed,
        "unused": runner.model.find_unused_parameters,
        "parameters": torch.cat([p.detach().flatten() for p in runner.model.parameters()]),
        "scores": runner.val(),
    }


def spied() -> tuple[list[str], list[Tensor]]:
    """Lists that get level, pairs and λ of every step from now on."""
    from mixplug import sampling

    levels: list[str] = []
    lams: list[Tensor] = []
    branch, beta = sampling.branch, sampling.beta

    def note_branch(choices: Any, source: torch.Generator, weights: Any) -> str:
        levels.append(branch(choices, source, weights))
        return levels[-1]

    def note_beta(alpha: float, size: int, source: torch.Generator) -> Tensor:
        lams.append(beta(alpha, size, source))
        return lams[-1]

    sampling.branch, sampling.beta = note_branch, note_beta
    return levels, lams
