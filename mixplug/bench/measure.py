"""Time alternatives in turns, and the memory that a call takes beyond what was there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

NO_BOUND = float("inf")  # of a row that is reported, and of which nothing is promised


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    Attributes:
        name: what was compared.
        value: what was measured.
        bound: what is promised.
        at_least: whether the bound is a lower one.
        unit: of value and bound; '' for ratios.
        note: absolute numbers, or the thesis' ones.
    """

    name: str
    value: float
    bound: float
    at_least: bool
    unit: str = ""
    note: str = ""

    @property
    def kept(self) -> bool:
        """Whether the promise held in this run."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, tick: Callable[[], None] | None = None
) -> dict[str, list[float]]:
    """Seconds of every call in every round, after one round that does not count.

    A shared machine slows down and recovers while it is measured. Alternatives that are timed one
    after the other in each round meet the same weather.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = _now()
            call()
            if turn:
                seconds[name].append(_now() - start)
            if tick is not None:
                tick()
    return seconds


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = _now()
    call()
    return _now() - start


def ratio(of: list[float], to: list[float]) -> float:
    """Ratio of the fastest rounds: what else the machine does can only add to a time."""
    return min(of) / min(to)


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes that a call on the CPU holds at a time, beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
