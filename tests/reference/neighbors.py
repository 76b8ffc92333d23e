"""Retrieval by loops over queries, items and pairs, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def distance(metric: str, a: Sequence[float], b: Sequence[float]) -> float:
    """Similarity ('ip' and 'cosine') or squared distance ('l2')."""
    product = math.fsum(x * y for x, y in zip(a, b, strict=True))
    if metric == "ip":
        return product
    if metric == "cosine":
        return product / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def neighbors(
    queries: Rows, gallery: Rows, k: int, metric: str, exclude: Sequence[int] | None = None
) -> tuple[list[list[float]], list[list[int]]]:
    """Distances and ids of all items, sorted by (distance, id), without the excluded id."""
    sign = 1 if metric == "l2" else -1
    values, ids = [], []
    for q, query in enumerate(queries):
        left_out = -1 if exclude is None else exclude[q]
        found = [(sign * distance(metric, query, g), i) for i, g in enumerate(gallery)]
        found = sorted(pair for pair in found if pair[1] != left_out)[:k]
        values.append([sign * value for value, _ in found])
        ids.append([i for _, i in found])
    return values, ids


def recall_at_k(neighbor_labels: list[list[int]], labels: list[int], k: int) -> float:
    """§4.4.1: mean of the score 1 if one of the K nearest has the class, else 0."""
    found = 0
    for row, label in zip(neighbor_labels, labels, strict=True):
        for other in row[:k]:
            if other == label:
                found += 1
                break
    return found / len(labels)


def r_precision(neighbor_labels: list[list[int]], labels: list[int], relevant: list[int]) -> float:
    """Musgrave et al., 2020: r / R if r of the R nearest have the class."""
    values = []
    for row, label, r in zip(neighbor_labels, labels, relevant, strict=True):
        if r > 0:
            values.append(sum(1 for other in row[:r] if other == label) / r)
    return math.fsum(values) / len(values)


def map_at_r(neighbor_labels: list[list[int]], labels: list[int], relevant: list[int]) -> float:
    """Musgrave et al., 2020: 1/R sum_{i=1}^{R} P(i), P(i) the precision at i if i is correct."""
    values = []
    for row, label, r in zip(neighbor_labels, labels, relevant, strict=True):
        total = 0.0
        for i in range(1, r + 1):
            if row[i - 1] == label:
                total += sum(1 for other in row[:i] if other == label) / i
        if r > 0:
            values.append(total / r)
    return math.fsum(values) / len(values)


def nmi(labels: list[int], clusters: list[int]) -> float:
    """2 I(Y; C) / (H(Y) + H(C)) from counts."""
    n = len(labels)

    def entropy(x: Sequence[object]) -> float:
        shares = [x.count(value) / n for value in set(x)]
        return -math.fsum(p * math.log(p) for p in shares)

    joint = entropy(list(zip(labels, clusters, strict=True)))
    separate = entropy(labels) + entropy(clusters)
    return 2 * (separate - joint) / separate


def alignment(embeddings: Rows, labels: list[int], alpha: float) -> float:
    """Wang & Isola, 2020: mean of ||a - b||^alpha over ordered pairs of the same class."""
    powers = [
        math.sqrt(distance("l2", a, b)) ** alpha
        for i, a in enumerate(embeddings)
        for j, b in enumerate(embeddings)
        if i != j and labels[i] == labels[j]
    ]
    return math.fsum(powers) / len(powers)


def uniformity(embeddings: Rows, t: float) -> float:
    """Wang & Isola, 2020: log of the mean over ordered pairs of exp(-t ||a - b||^2)."""
    values = [
        math.exp(-t * distance("l2", a, b))
        for i, a in enumerate(embeddings)
        for j, b in enumerate(embeddings)
        if i != j
    ]
    return math.log(math.fsum(values) / len(values))


def utilization(queries: Rows, gallery: Rows) -> float:
    """Utilization (eq. 4.25)."""
    return math.fsum(min(distance("l2", q, x) for x in gallery) for q in queries) / len(queries)


def intrusion_distance(
    mixed: Rows, weights: Rows, clean: Rows, labels: Sequence[int]
) -> tuple[float, int]:
    """Intrusion distance (§5.4.7): mean over mixtures that lack a class, and their number."""
    found = []
    for z, row in zip(mixed, weights, strict=True):
        inside = {label for label, weight in zip(labels, row, strict=True) if weight > 0}
        others = [
            distance("l2", z, e)
            for e, label in zip(clean, labels, strict=True)
            if label not in inside
        ]
        if others:
            found.append(min(others))
    return (math.fsum(found) / len(found) if found else math.nan), len(found)
