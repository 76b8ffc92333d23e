"""Out-of-distribution detection by loops over examples, pairs and thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence


def auroc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """Share of pairs (in, out) in the correct order; ties count half."""
    total = 0.0
    for a in inside:
        for b in outside:
            total += 1.0 if a > b else 0.5 if a == b else 0.0
    return total / (len(inside) * len(outside))


def average_precision(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Sum over descending thresholds of the increase in recall times the precision."""
    total, before = 0.0, 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        right = sum(1 for s in positive if s >= threshold)
        wrong = sum(1 for s in negative if s >= threshold)
        recall = right / len(positive)
        total += (recall - before) * right / (right + wrong)
        before = recall
    return total


def detection_accuracy(
    inside: Sequence[float], outside: Sequence[float], threshold: float
) -> float:
    """Accuracy on a set in which both groups are repeated to the same size."""
    right = 0
    for s in inside:
        right += len(outside) if s >= threshold else 0
    for s in outside:
        right += len(inside) if s < threshold else 0
    return right / (2 * len(inside) * len(outside))


def best_detection_accuracy(
    inside: Sequence[float], outside: Sequence[float]
) -> tuple[float, float]:
    """Best over all scores and one above them; ties go to the smallest threshold."""
    best, at = -1.0, math.nan
    for threshold in [*sorted({*inside, *outside}), math.inf]:
        accuracy = detection_accuracy(inside, outside, threshold)
        if accuracy > best + 1e-12:
            best, at = accuracy, threshold
    return best, at


def false_positive_rate(inside: Sequence[float], outside: Sequence[float], percent: int) -> float:
    """Lower the threshold until at least this percentage is accepted."""
    for threshold in sorted(inside, reverse=True):
        if 100 * sum(1 for s in inside if s >= threshold) >= percent * len(inside):
            return sum(1 for s in outside if s >= threshold) / len(outside)
    raise AssertionError


def knn_score(query: Sequence[float], bank: Sequence[Sequence[float]], k: int) -> float:
    """Sun et al., 2022: negative k-th smallest distance on the unit sphere."""

    def unit(v: Sequence[float]) -> list[float]:
        length = math.sqrt(math.fsum(x * x for x in v))
        return [x / length if length else 0.0 for x in v]

    distances = []
    for item in bank:
        squares = [(x - y) ** 2 for x, y in zip(unit(query), unit(item), strict=True)]
        distances.append(math.sqrt(math.fsum(squares)))
    return -sorted(distances)[k - 1]
