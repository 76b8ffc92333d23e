"""The measurement of label propagation, at a small size."""

from __future__ import annotations

import pytest

from mixplug.bench import davis


def test_speed_and_memory_with_a_full_context(monkeypatch) -> None:
    """The fake clock advances one second per call, so each frame takes one second."""
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
    context = 4 * positions * width * 8  # features of eight frames
    weights = 4 * 5_500_000
    assert 2 * context < peak < weights  # the features are stacked once more for every frame
