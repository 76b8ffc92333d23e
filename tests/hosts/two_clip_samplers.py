"""What one of two processes draws with mm's sampler of clips."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from hosts.two_samplers import Rows
from mmengine.runner import Runner


def work(rank: int, meeting: str, out: str) -> None:
    """Run in process ``rank`` of 2; results go to OUT/RANK.pt."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    drawn = []
    for seed in (3, None):
        config = {"batch_size": 2, "dataset": Rows([0] * 9), "num_workers": 0}
        config["sampler"] = {"type": "mixplug.ClipSampler"}
        built = Runner.build_dataloader(config, seed=seed).sampler
        drawn.append((built.seed, list(built)))
    torch.save(drawn, Path(out) / f"{rank}.pt")
    dist.destroy_process_group()
