"""Numbers that change while a model trains."""

from __future__ import annotations

import math
from collections.abc import Callable


def cosine(
    start: float, end: float, steps: int, warmup_steps: int = 0, warmup_start: float = 0.0
) -> Callable[[int], float]:
    """Half a cosine from ``start`` to ``end``, after a straight line from ``warmup_start``.

    Args:
        start: value at step ``warmup_steps``.
        end: value at step ``steps``, the first after training, and from there on.
        steps: of the training, warm-up included.
        warmup_steps: length of the line.
        warmup_start: value at step 0, where there is a line.

    Returns:
        A function of the step, counted from 0.

    Raises:
        ValueError: steps < 1, or a warm-up that is negative or not shorter than ``steps``.
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
