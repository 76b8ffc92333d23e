"""Faults of a step are noticed at once on the CPU, and one step late elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixplug.stages.watch import Watch

NAN = float("nan")
ELSEWHERE = [
    pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"needs {name}"))
    for name, there in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    )
]


@pytest.mark.parametrize("shares", [[0.0, 1.0], [0.3], [-1e-6, 1 + 1e-6]])
def test_shares_within_rounding(shares: list[float]) -> None:
    watch = Watch()
    watch.see_shares(torch.tensor(shares), "here")
    watch.check("here")


@pytest.mark.parametrize(
    ("shares", "got"),
    [
        ([0.5, 1.25], "0.5 to 1.25"), ([-0.1, 0.5], "-0.1 to 0.5"), ([0.5, NAN], "nan to nan"),
        ([0.5, float("inf")], "0.5 to inf"), ([[0.1, 0.2], [0.3, 1.5]], "0.1 to 1.5"),
    ],
)  # fmt: skip
def test_other_shares(shares: list[float], got: str) -> None:
    message = rf"^here: measured shares must be finite and in \[0, 1\], got {got}\.$"
    with pytest.raises(ValueError, match=message):
        Watch().see_shares(torch.tensor(shares), "here")


def fine(watch: Watch) -> None:
    watch.see(torch.ones(2, 3))
    watch.see_shares(torch.ones(2), "fine")


def test_a_further_pass_adds_to_the_first() -> None:
    watch, bad = Watch(), torch.tensor([[NAN]])
    for first, second in ((bad, torch.ones(1, 1)), (torch.ones(1, 1), bad)):
        watch.see(first)
        watch.see(second, further=True)
        with pytest.raises(ValueError, match="step 1: the features that reach the classifier are"):
            watch.check("step 1")
        fine(watch)
        watch.check("step 2")  # forgotten


@pytest.mark.parametrize("device", ELSEWHERE)
@pytest.mark.parametrize("nan", [True, False])
def test_elsewhere_one_step_late(device: str, nan: bool) -> None:
    watch = Watch()

    def step(number: int, embedding: Tensor, shares: Tensor) -> None:
        watch.see(embedding.to(device))
        watch.see_shares(shares.to(device), f"step {number}")
        watch.check(f"step {number}")

    good = torch.ones(2, 3), torch.ones(2)
    bad = (torch.full((2, 3), NAN), good[1]) if nan else (good[0], 2 * good[1])
    step(1, *bad)
    with pytest.raises(ValueError, match=r"^step 1: .* This was noticed one step late\.$"):
        step(2, *good)
    step(3, *good)
