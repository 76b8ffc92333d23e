"""Two gloo processes train a detector and a segmentor: one branch, own draws, one network."""

from __future__ import annotations

import pytest
import torch
from hosts.two_transfers import STEPS, work
from two_processes import in_both

HEADS = {"mmdet": 2, "mmseg": 1}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict]]:
    """What both processes recorded."""
    return in_both(work, tmp_path_factory.mktemp("two_transfers"))


@pytest.mark.parametrize("host", HEADS)
def test_one_branch_and_own_draws(host: str, ranks: list[dict[str, dict]]) -> None:
    zero, one = (rank[host]["plans"] for rank in ranks)
    assert len(zero) == len(one) == STEPS * HEADS[host]
    assert [plan.branch for plan in zero] == [plan.branch for plan in one]
    assert len({plan.branch for plan in zero}) == 2
    assert not {plan.key for plan in zero} & {plan.key for plan in one}


@pytest.mark.parametrize("host", HEADS)
def test_ranks_stay_together(host: str, ranks: list[dict[str, dict]]) -> None:
    zero, one = (rank[host] for rank in ranks)
    assert torch.equal(zero["parameters"], one["parameters"])
    assert zero["parameters"].isfinite().all()
    assert zero["lacking"] == one["lacking"] == []
