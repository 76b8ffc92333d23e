"""Search in two processes against search in one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from retrieval.two_searchers import CASES, case, own_ids, work
from torch.testing import assert_close
from two_processes import in_both

from mixplug.retrieval import search


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of both processes."""
    return in_both(work, tmp_path_factory.mktemp("two_searchers"), 120)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_find_the_same_as_one(name: str, ranks: list) -> None:
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


def test_an_error_on_one_rank_is_raised_on_both(ranks: list) -> None:
    zero, one = (rank["errors"] for rank in ranks)
    assert zero == one
    parts = (
        "sharded_search failed on rank 1: search needs finite gallery",
        "the same width on all ranks, got [2, 3].",
        "the same queries on all ranks, got [2, 3] queries per rank.",
        "between 1 and 10, got 11. The gallery has 10 items.",
        "shards whose ids do not overlap, got the ranges [(0, 5), (3, 8)].",
        "sharded_search failed on rank 0: search needs exclude (Q,)",
    )
    for message, part in zip(zero, parts, strict=True):
        assert part in message
