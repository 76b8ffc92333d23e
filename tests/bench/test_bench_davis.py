"""The measurement of label propagation, at a fraction of its size."""

from __future__ import annotations

import pytest

from mixplug.bench import davis


def test_frames_and_memory_are_those_of_a_full_context(monkeypatch) -> None:
    """A clock that gains a second each time it is asked: every frame takes one."""
    seconds = iter(range(100))
    monkeypatch.setattr(davis.time, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(davis, "PROTOCOL", davis.Protocol(size=64))
    ticks: list[int] = []
    fps, peak = davis.measure_davis(
        frames=2, arch="vit_tiny_patch16_224", size=(64, 128), tick=lambda: ticks.append(1)
    )
    assert fps == pytest.approx(1.0)
    assert len(ticks) == 9
    positions, width = 4 * 8, 192
    held = 4 * positions * width * 8  # features of eight frames
    weights = 4 * 5_500_000
    assert 2 * held < peak < weights  # they are stacked once more for every frame
