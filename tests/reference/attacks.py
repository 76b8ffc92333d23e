"""Attacks pixel by pixel, with gradients by finite differences of the cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable

Logits = Callable[[list[float]], list[float]]


def cross_entropy(logits: list[float], label: int) -> float:
    """-log softmax(z)_y."""
    most = max(logits)
    return most + math.log(sum(math.exp(z - most) for z in logits)) - logits[label]


def climb(
    model: Logits, pixels: list[float], label: int, eps: float, step: float, iters: int
) -> list[float]:
    """PGD of one flat image (Madry et al., 2018); one step of length ε is FGSM."""
    at = list(pixels)
    for _ in range(iters):
        moved = []
        for i, value in enumerate(at):
            sides = []
            for h in (1e-6, -1e-6):
                beside = [v + h if j == i else v for j, v in enumerate(at)]
                sides.append(cross_entropy(model(beside), label))
            slope = sides[0] - sides[1]
            sign = 0 if abs(slope) < 1e-13 else math.copysign(1, slope)
            new = value + step * sign
            new = min(max(new, pixels[i] - eps), pixels[i] + eps)
            moved.append(min(max(new, 0.0), 1.0))
        at = moved
    return at
