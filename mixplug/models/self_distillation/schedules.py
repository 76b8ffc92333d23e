"""Schedules: settings that change during training."""

from __future__ import annotations

import math
from collections.abc import Callable


def cosine(
    start: float, end: float, steps: int, warmup_steps: int = 0, warmup_start: float = 0.0
) -> Callable[[int], float]:
    """Half a cosine from ``start`` to ``end``, after a linear warm-up from ``warmup_start``.

    Args:
        start: value at step ``warmup_steps``.
        end: value at step ``steps``, the first after training, and later.
        steps: number of steps of the training, including the warm-up.
        warmup_steps: number of steps of the warm-up.
        warmup_start: value at step 0 if there is a warm-up.

    Returns:
        A function of the step, counted from 0.

    Raises:
        ValueError: steps < 1, or ``warmup_steps`` outside [0, steps).
    """
    if steps < 1 or not 0 <= warmup_steps < steps:
        raise ValueError(
            f"cosine needs steps >= 1 and 0 <= warmup_steps < steps, got steps={steps} and "
            f"warmup_steps={warmup_steps}."
        )

    def value(step: int) -> float:
        if step < warmup_steps:
            return warmup_start + (start - warmup_start) * step / warmup_steps
        done = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))

    return value
