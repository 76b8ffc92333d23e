"""Two gloo processes train with every mixer: one branch, own draws, one gradient, no hang."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hosts.hosting import variants
from hosts.two_ranks import STEPS, work
from two_processes import in_both

SECONDS = 400
CASES = [(host, name) for host in ("timm", "mm") for name in variants()]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, str], dict[str, Any]]]:
    """What both processes recorded."""
    return in_both(work, tmp_path_factory.mktemp("two_ranks"), SECONDS)


@pytest.mark.parametrize(("host", "name"), CASES)
def test_all_ranks_take_one_branch(host: str, name: str, ranks: list) -> None:
    zero, one = (rank[host, name]["plans"] for rank in ranks)
    assert len(zero) == len(one) == STEPS
    assert [plan.branch for plan in zero] == [plan.branch for plan in one]
    branches = {
        "mixup": 1,
        "cutmix": 1,
        "one_of": 1,
        "alignmix": 4,
        "alignmix-ae": 5,
        "alignmix-vae": 5,
    }
    assert len({plan.branch for plan in zero}) == branches.get(name, 2)


@pytest.mark.parametrize(("host", "name"), CASES)
def test_every_rank_has_draws_of_its_own(host: str, name: str, ranks: list) -> None:
    pairs = list(zip(*(rank[host, name]["plans"] for rank in ranks), strict=True))
    paired = [(mine, yours) for mine, yours in pairs if len(mine.lam)]
    keyed = [(mine, yours) for mine, yours in pairs if mine.key]
    assert len(paired) > 10 or len(keyed) > 10
    assert all(mine.key != yours.key for mine, yours in keyed)
    assert all((mine.lam != yours.lam).all() for mine, yours in paired)
    alike = [torch.equal(mine.permutation, yours.permutation) for mine, yours in paired]
    assert sum(alike) < len(paired) / 4  # of 24 permutations of four
    boxes = [mine.box == yours.box for mine, yours in paired]
    assert name != "cutmix" or sum(boxes) < len(paired) / 4


@pytest.mark.parametrize(("host", "name"), CASES)
def test_gradients_are_the_mean_over_ranks(host: str, name: str, ranks: list) -> None:
    zero, one = (rank[host, name] for rank in ranks)
    assert zero["gradients"] == one["gradients"]
    assert all(norm > 0 for norm in zero["gradients"])
    for rank in (zero, one):
        assert rank["averaged"].keys() == {plan.branch for plan in zero["plans"]}
        assert all(rank["averaged"].values())
        assert all(rank["unlike"].values())  # so that the mean is not what a rank has anyway


@pytest.mark.parametrize(("host", "name"), CASES)
def test_ranks_stay_together_without_a_search_for_unused_parameters(
    host: str, name: str, ranks: list
) -> None:
    zero, one = (rank[host, name] for rank in ranks)
    assert torch.equal(zero["parameters"], one["parameters"])
    assert zero["moved"]
    assert zero["unused"] is one["unused"] is False


def test_the_seed_is_that_of_the_first_rank(ranks: list) -> None:
    for name in variants():
        assert [rank["timm", name]["seed"] for rank in ranks] == [100, 100]


def test_mmengines_own_loop(ranks: list) -> None:
    zero, one = (rank["runner", "multimix"] for rank in ranks)
    assert zero["class"] == "MMDistributedDataParallel"
    assert zero["unused"] is False
    assert zero["seed"] == one["seed"]
    assert len(zero["plans"]) == len(one["plans"]) == 2  # 64 images, 16 a step on each
    assert [p.branch for p in zero["plans"]] == [p.branch for p in one["plans"]]
    assert torch.equal(zero["parameters"], one["parameters"])
    for mine, yours in zip(zero["plans"], one["plans"], strict=True):
        assert mine.key != yours.key or not torch.equal(mine.lam, yours.lam)
