"""Half-open intervals of seconds [start, end)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

Span = tuple[float, float]


def split(spans: Iterable[Span], at: Iterable[float]) -> list[Span]:
    """Split spans at the given points; points outside the spans have no effect."""
    points = sorted(set(at))
    parts = []
    for start, end in spans:
        edges = [start, *(p for p in points if start < p < end), end]
        parts += list(itertools.pairwise(edges))
    return parts


def subtract(spans: Iterable[Span], holes: Iterable[Span]) -> list[Span]:
    """The parts of spans that are in no hole, sorted."""
    rest = list(spans)
    for start, end in holes:
        rest = [
            part
            for a, b in rest
            for part in ((a, min(b, start)), (max(a, end), b))
            if part[0] < part[1]
        ]
    return sorted(set(rest))


def merge(spans: Iterable[Span], gap: float = 0.0) -> list[Span]:
    """Sorted spans; spans that overlap, touch, or are at most ``gap`` apart are merged."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + gap:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged
