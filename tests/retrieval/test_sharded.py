"""Search by two processes against search by one."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from points import grid
from torch import Tensor
from torch.testing import assert_close

from mixplug.retrieval import search, sharded_search
from mixplug.retrieval import sharded as module

SECONDS = 120

# Two processes: what each searches, from one seed. The first shard is smaller than k.
CASES: dict[str, dict[str, Any]] = {
    "ties": {"make": grid, "k": 9},
    "reals": {"make": lambda n: torch.randn(n, 32), "k": 9},
    "torch": {"make": grid, "k": 9, "backend": "torch", "metric": "l2"},
    "own queries": {"make": grid, "k": 9, "queries_sharded": True},
    "an empty shard": {"make": grid, "k": 9, "cut": 0, "queries_sharded": True},
    "cosine": {"make": lambda n: torch.randn(n, 8), "k": 3, "metric": "cosine"},
    "no exclusion": {"make": grid, "k": 9, "exclude": 0},
    "exclusion on one rank": {"make": grid, "k": 9, "exclude": 70, "queries_sharded": True},
    "offsets": {"make": grid, "k": 9, "swapped": True},
}


def case(name: str) -> tuple[Tensor, dict[str, Any]]:
    settings = dict(CASES[name])
    torch.manual_seed(11)
    return settings.pop("make")(100), settings


def own_ids(settings: dict[str, Any]) -> Tensor:
    """Of the first queries, as many as the case says; -1 for the others."""
    ids = torch.arange(100)
    ids[settings.pop("exclude", 100) :] = -1
    return ids


def share(rank: int, name: str) -> tuple[Tensor, Tensor]:
    """What a rank gets in a case."""
    e, settings = case(name)
    cut = settings.pop("cut", 6)
    own = own_ids(settings)
    shard, offset = (e[:cut], 0) if rank == 0 else (e[cut:], cut)
    if settings.pop("swapped", False):  # the first rank has the last ids
        shard, offset = (e[40:], 40) if rank == 0 else (e[:40], 0)
        settings["offset"] = offset
    queries = e
    if settings.get("queries_sharded"):  # 70 and 30 of them
        part = slice(0, 70) if rank == 0 else slice(70, 100)
        queries, own = e[part], own[part]
    own = own if (own >= 0).any() else None
    return sharded_search(queries, shard, settings.pop("k"), exclude=own, **settings)


def refused(rank: int) -> list[str]:
    """The messages of what only one rank gets wrong."""
    e = torch.ones(5, 2)
    calls = [
        lambda: sharded_search(e, e / 0 if rank else e, 1),
        lambda: sharded_search(e, torch.ones(5, 3) if rank else e, 1),
        lambda: sharded_search(e[: 2 + rank], e, 1),
        lambda: sharded_search(e, e, 11),
        lambda: sharded_search(e, e, 1, offset=3 * rank),
        lambda: sharded_search(e, e, 1, exclude=torch.arange(4 + rank)),
    ]
    messages = []
    for call in calls:
        with pytest.raises(ValueError) as caught:
            call()
        messages.append(str(caught.value))
    return messages


def work(meeting: str, out: str, rank: int) -> None:
    """What one of two processes does; results go to OUT/RANK.pt."""
    torch.set_num_threads(1)
    module.BLOCK = 32  # so that there is more than one block to merge
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    results: dict[str, Any] = {name: share(rank, name) for name in CASES}
    results["refused"] = refused(rank)
    torch.save(results, Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes found."""
    out = tmp_path_factory.mktemp("two_ranks")
    command = [sys.executable, __file__, str(out / "meeting"), str(out)]
    here = Path(__file__).parents  # as pytest has it: the root, and the tests
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here[2]), str(here[1])])}
    options = {"env": env, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(rank)], **options) for rank in range(2)]
    try:
        said = [process.communicate(timeout=SECONDS)[1] for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        pytest.fail(f"Two processes hang: not done after {SECONDS} s.")
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_find_what_one_finds(name: str, ranks: list) -> None:
    e, settings = case(name)
    own = own_ids(settings)
    known = {key: settings[key] for key in ("backend", "metric") if key in settings}
    values, ids = search(e, e, settings["k"], exclude=own, **known)
    zero, one = (rank[name] for rank in ranks)
    if settings.get("queries_sharded"):
        assert [len(zero[1]), len(one[1])] == [70, 30]
        zero = one = tuple(torch.cat(parts) for parts in zip(zero, one, strict=True))
    for found in (zero, one):
        assert torch.equal(found[1], ids)
        assert_close(found[0], values, rtol=1e-6, atol=1e-6)


def test_what_one_rank_refuses_is_raised_on_both(ranks: list) -> None:
    zero, one = (rank["refused"] for rank in ranks)
    assert zero == one
    parts = (
        "sharded_search on rank 1: search needs finite gallery",
        "one width on all ranks, got [2, 3].",
        "the same queries on all ranks, got [2, 3] of them",
        "between 1 and 10, got 11: gallery smaller than K (10 items).",
        "ids that do not overlap, got the spans [(0, 5), (3, 8)].",
        "sharded_search on rank 0: search needs exclude (Q,)",
    )
    for message, part in zip(zero, parts, strict=True):
        assert part in message


if __name__ == "__main__":  # one of two processes
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
