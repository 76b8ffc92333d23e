"""Numbers over training, against their formula and their ends."""

from __future__ import annotations

import math

import pytest

from mixplug.models.self_distillation.schedules import cosine


def test_half_a_cosine() -> None:
    value = cosine(0.996, 1.0, 40)
    assert value(0) == 0.996
    assert value(20) == pytest.approx(0.998)
    assert value(40) == 1.0
    for step in range(40):
        expected = 1.0 - 0.004 * (1 + math.cos(math.pi * step / 40)) / 2
        assert value(step) == pytest.approx(expected, abs=1e-12)


def test_after_the_last_step_it_stays() -> None:
    assert cosine(1.0, 0.0, 10)(10) == cosine(1.0, 0.0, 10)(1000) == 0.0


def test_warm_up_is_a_line() -> None:
    value = cosine(5e-4, 1e-6, 30, warmup_steps=10, warmup_start=1e-5)
    assert [value(step) for step in (0, 5, 10)] == pytest.approx([1e-5, (1e-5 + 5e-4) / 2, 5e-4])
    assert value(20) == pytest.approx((5e-4 + 1e-6) / 2)
    assert value(30) == pytest.approx(1e-6)
    assert cosine(4.0, 1.0, 8, warmup_steps=4)(1) == 1.0  # from 0, unless told otherwise


@pytest.mark.parametrize(("steps", "warmup"), [(0, 0), (5, 5), (5, -1)])
def test_impossible_lengths(steps: int, warmup: int) -> None:
    with pytest.raises(ValueError, match=f"got steps={steps} and warmup_steps={warmup}"):
        cosine(0.0, 1.0, steps, warmup)
