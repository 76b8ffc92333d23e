"""What one of two processes draws with mm's sampler of clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hosts.two_samplers import Rows
from mmengine.runner import Runner


def work(rank: int, out: Path) -> list[Any]:
    """On rank ``rank`` of 2."""
    drawn = []
    for seed in (3, None):
        config = {"batch_size": 2, "dataset": Rows([0] * 9), "num_workers": 0}
        config["sampler"] = {"type": "mixplug.ClipSampler"}
        built = Runner.build_dataloader(config, seed=seed).sampler
        drawn.append((built.seed, list(built)))
    return drawn
