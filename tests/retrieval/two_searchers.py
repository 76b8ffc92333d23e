"""The search of one of two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from points import grid
from torch import Tensor

from mixplug.retrieval import sharded, sharded_search

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
    """Ids to exclude for as many queries as the case requires, -1 for the others."""
    ids = torch.arange(100)
    ids[settings.pop("exclude", 100) :] = -1
    return ids


def share(rank: int, name: str) -> tuple[Tensor, Tensor]:
    """The result of a rank in one case."""
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


def error_messages(rank: int) -> list[str]:
    """Messages of errors that only one rank causes."""
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


def work(rank: int, out: Path) -> dict[str, Any]:
    """All results of one of two ranks."""
    sharded.BLOCK = 32  # so that there is more than one block to merge
    results: dict[str, Any] = {name: share(rank, name) for name in CASES}
    return {**results, "errors": error_messages(rank)}
