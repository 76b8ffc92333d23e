"""Interleaved timing of alternatives, and the peak memory of a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

NO_BOUND = float("inf")  # bound of a row that is only reported


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    Attributes:
        name: quantity that is measured.
        value: measured value.
        bound: bound that the value should meet.
        at_least: whether the bound is a lower bound.
        unit: unit of value and bound; '' if there is none.
        note: absolute values, or values of the thesis.
    """

    name: str
    value: float
    bound: float
    at_least: bool
    unit: str = ""
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether this run met the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, tick: Callable[[], None] | None = None
) -> dict[str, list[float]]:
    """Seconds of each call in each round, after one round that does not count.

    A shared machine becomes slower and faster during a measurement. In each round, all alternatives
    run one after the other, so they meet the same conditions.
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
    """Ratio of the fastest rounds, because other processes can only add time."""
    return min(of) / min(to)


def peak_bytes(call: Callable[[], object]) -> int:
    """Peak memory of a call on the CPU in bytes, beyond the memory in use before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    used = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        used += event.nbytes()
        peak = max(peak, used)
    return peak


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
