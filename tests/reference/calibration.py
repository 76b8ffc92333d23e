"""Calibration errors by loops over bins and examples."""

from __future__ import annotations

import math


def bins_of(
    probabilities: list[list[float]], labels: list[int], bins: int
) -> list[tuple[float, float, float]]:
    """(share, accuracy, confidence) of each bin (i/bins, (i+1)/bins]; zeros for an empty bin."""
    rows = []
    for i in range(bins):
        low, high = i / bins, (i + 1) / bins
        inside = []
        for row, label in zip(probabilities, labels, strict=True):
            confidence = max(row)
            if low < confidence <= high or (i == 0 and confidence == 0):
                inside.append((confidence, row.index(confidence) == label))
        count = len(inside)
        accuracy = sum(right for _, right in inside) / count if count else 0.0
        confidence = sum(value for value, _ in inside) / count if count else 0.0
        rows.append((count / len(labels), accuracy, confidence))
    return rows


def expected_calibration_error(
    probabilities: list[list[float]], labels: list[int], bins: int
) -> float:
    """sum_i |B_i| / n |acc(B_i) - conf(B_i)| (Guo et al., 2017)."""
    return sum(s * abs(a - c) for s, a, c in bins_of(probabilities, labels, bins))


def overconfidence_error(probabilities: list[list[float]], labels: list[int], bins: int) -> float:
    """sum_i |B_i| / n conf(B_i) max(conf(B_i) - acc(B_i), 0) (Thulasidasan et al., 2019)."""
    return sum(s * c * max(c - a, 0.0) for s, a, c in bins_of(probabilities, labels, bins))


def brier_score(probabilities: list[list[float]], labels: list[int]) -> float:
    """Mean over examples of the sum over classes of (p_k - [k = y])^2 (Brier, 1950)."""
    total = 0.0
    for row, label in zip(probabilities, labels, strict=True):
        for k, p in enumerate(row):
            total += (p - 1) ** 2 if k == label else p**2
    return total / len(labels)


def negative_log_likelihood(logits: list[list[float]], labels: list[int], t: float = 1.0) -> float:
    """Mean of -log softmax(z / T)_y; the largest logit is subtracted before exp."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        z = [value / t for value in row]
        top = max(z)
        total += top + math.log(math.fsum(math.exp(value - top) for value in z)) - z[label]
    return total / len(labels)


def fit_temperature(logits: list[list[float]], labels: list[int]) -> float:
    """Search on geometric grids of T from 1e-3 to 1e3, each finer around the previous optimum."""
    low, high = math.log(1e-3), math.log(1e3)
    for _ in range(8):
        grid = [low + (high - low) * i / 20 for i in range(21)]
        values = [negative_log_likelihood(logits, labels, math.exp(t)) for t in grid]
        best = values.index(min(values))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 20)]
    return math.exp((low + high) / 2)
