"""Run something in two gloo processes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.nn  # see _work
import torch.multiprocessing as mp

Job = Callable[[int, Path], Any]


def in_both(job: Job, out: Path, seconds: float = 300) -> list[Any]:
    """What ``job(rank, out)`` returns on each of two ranks; it is a function of a module.

    Raises what a process raises, and fails when they are not done after so many seconds.
    """
    processes = mp.spawn(_work, args=(job, out), nprocs=2, join=False)
    deadline = time.monotonic() + seconds
    while not processes.join(timeout=5):
        if time.monotonic() > deadline:
            for process in processes.processes:
                process.kill()
            pytest.fail(f"Two processes hang: not done after {seconds} s.")
    return [torch.load(out / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _work(rank: int, job: Job, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{out / 'meeting'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    torch.save(job(rank, out), out / f"{rank}.pt")
    # The threads of a group end with its last holder, and may abort the process if that goes only
    # with the interpreter. Models under DDP hold it, in cycles; and so do functions of
    # torch.distributed.nn, by default arguments, if that is imported while there is a group, as DDP
    # does.
    gc.collect()
    dist.destroy_process_group()
    tasks = Path("/proc/self/task")
    names = [task.read_text().strip() for task in tasks.glob("*/comm")]
    assert "pt_gloo_runloop" not in names, "Something still holds the process group."
