"""What one of two processes does: a detector and a segmentor with a mixer, under DDP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hosts.mm.mixing import test_detector as detector
from hosts.mm.mixing import test_segmentor as segmentor
from mmengine.dataset import pseudo_collate
from mmengine.model import MMDistributedDataParallel
from torch import nn
from torch.utils.data import Dataset

import mixplug
from mixplug.hosts.mm.mixing.key import train_with

STEPS = 6


def work(rank: int, out: Path) -> dict[str, dict[str, Any]]:
    """On rank ``rank`` of 2."""
    torch.manual_seed(rank)  # the wrapper gives rank 1 the weights of rank 0
    mixers = {"mmdet": detector.MULTIMIX, "mmseg": segmentor.DENSE}
    models = {"mmdet": detector.build("cascade"), "mmseg": segmentor.build()}
    data = {"mmdet": detector.Boxes(), "mmseg": segmentor.Maps()}
    return {host: _trained(rank, models[host], mixers[host], data[host]) for host in mixers}


def _trained(
    rank: int, model: nn.Module, mixup: Mapping[str, Any], data: Dataset
) -> dict[str, Any]:
    mixer = mixplug.build({**mixup, "prob": 0.5})
    train_with(model, mixer)
    plans, plain = [], mixer.sample_within

    def sample_within(generators: mixplug.sampling.Generators) -> mixplug.Plan:
        plans.append(plain(generators))
        return plans[-1]

    object.__setattr__(mixer, "sample_within", sample_within)
    wrapped = MMDistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(STEPS):
        model.clock.seed, model.clock.step = 3, step  # takes both branches
        items = pseudo_collate([data[2 * rank], data[2 * rank + 1]])
        batch = model.data_preprocessor(items, training=True)
        optimizer.zero_grad()
        model.parse_losses(wrapped(**batch, mode="loss"))[0].backward()
        optimizer.step()
    return {
        "plans": plans,
        "parameters": torch.cat([p.detach().flatten() for p in model.parameters()]),
        "lacking": [name for name, p in model.named_parameters() if p.grad is None],
    }
