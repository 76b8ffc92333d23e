"""Object discovery by exhaustive search over sets of patches, loops and flood fill."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import torch
from torch import Tensor


def attention_mask(attention: Tensor, mass: float) -> list[set[int]]:
    """For each image, the smallest set with that share of the sum; ties go to the largest sum."""
    found = []
    for row in attention.double():
        heads = row if row.dim() == 2 else row[None]
        a = [sum(float(head[i]) for head in heads) / len(heads) for i in range(row.shape[-1])]
        sets: Iterable[tuple[int, ...]] = ()
        for size in range(1, len(a) + 1):
            sets = [
                s
                for s in combinations(range(len(a)), size)
                if sum(a[i] for i in s) >= mass * sum(a)
            ]
            if sets:
                break
        found.append(set(max(sets, key=lambda s: sum(a[i] for i in s))))
    return found


def flood(inside: set[tuple[int, int]], start: tuple[int, int]) -> set[tuple[int, int]]:
    """All cells that are reachable from ``start`` by steps in four directions."""
    seen, front = {start}, [start]
    while front:
        row, column = front.pop()
        for step in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if step in inside and step not in seen:
                seen.add(step)
                front.append(step)
    return seen


def box(cells: set[tuple[int, int]]) -> list[int]:
    rows, columns = [row for row, _ in cells], [column for _, column in cells]
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


def lost_box(keys: Tensor, grid: tuple[int, int], k: int) -> list[int]:
    points = [[float(value) for value in key] for key in keys]

    def product(p: int, q: int) -> float:
        return sum(a * b for a, b in zip(points[p], points[q], strict=True))

    patches = range(len(points))
    degree = [sum(product(p, q) > 0 for q in patches) for p in patches]
    lowest = sorted(patches, key=lambda p: (degree[p], p))[:k]
    seeds = [q for q in lowest if product(q, lowest[0]) > 0]
    mask = {q for q in patches if sum(product(q, s) for s in seeds) > 0}
    cells = {divmod(q, grid[1]) for q in mask}
    return box(flood(cells, divmod(lowest[0], grid[1])))


def jaccard(predicted: Tensor, truth: Tensor, ignore: Tensor | None) -> float:
    both = either = 0
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            if ignore is not None and bool(ignore[row, column]):
                continue
            p, g = bool(predicted[row, column]), bool(truth[row, column])
            both += p and g
            either += p or g
    return both / either if either else 1.0


def as_mask(cells: set[int], size: int) -> Tensor:
    return torch.tensor([i in cells for i in range(size)])
