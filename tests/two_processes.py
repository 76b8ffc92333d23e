"""Run something in two gloo processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
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
    dist.destroy_process_group()
    # The threads of a group end with its last holder, and may abort a process whose interpreter
    # goes before them. Functions of torch.distributed.nn and others hold it by default arguments,
    # if they are imported while there is a group, as DDP and mmengine do. So the interpreter is
    # not taken down: all is said and saved.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
