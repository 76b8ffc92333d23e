"""Two gloo processes distil: gradients, teacher and center are those of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hosts.two_distillers import BATCHES, METHODS, STEPS, train, work
from two_processes import in_both

SECONDS = 200


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes recorded."""
    return in_both(work, tmp_path_factory.mktemp("two_distillers"), SECONDS)


@pytest.mark.parametrize("name", ["DINO", "DoRA", "Patches"])
def test_one_process_and_two_have_equal_gradients(name: str, ranks: list) -> None:
    alone = train(name, 0, 1)
    assert len(alone["gradients"]) == STEPS
    for rank in ranks:
        for mine, expected in zip(rank[name]["gradients"], alone["gradients"], strict=True):
            assert float(expected.abs().max()) > 1e-3
            torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["DINO", "DoRA", "Patches"])
def test_one_process_and_two_have_equal_teachers_and_centers(name: str, ranks: list) -> None:
    alone = train(name, 0, 1)["state"]
    centers = [value for key, value in alone.items() if key.startswith("center")]
    assert len(centers) == (2 if name == "Patches" else 1)
    assert all(float(center.norm()) > 1e-2 for center in centers)
    for rank in ranks:
        for key, expected in alone.items():
            torch.testing.assert_close(rank[name]["state"][key], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_processes_do_not_drift_apart(name: str, ranks: list) -> None:
    first, second = (rank[name]["state"] for rank in ranks)
    assert int(first["steps"]) == STEPS * BATCHES
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_every_process_draws_its_own_heads(ranks: list) -> None:
    first, second = (rank["DoRA drawn"]["drawn"] for rank in ranks)
    assert len(first) == len(second) == STEPS * BATCHES
    assert first != second
    assert len({str(heads) for heads in first}) > 1
