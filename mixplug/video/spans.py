"""Half-open intervals of seconds [start, end)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

Span = tuple[float, float]


def split(spans: Iterable[Span], at: Iterable[float]) -> list[Span]:
    """Part spans at points; one outside of them changes nothing."""
    points = sorted(set(at))
    parts = []
    for start, end in spans:
        edges = [start, *(p for p in points if start < p < end), end]
        parts += list(itertools.pairwise(edges))
    return parts


def without(spans: Iterable[Span], holes: Iterable[Span]) -> list[Span]:
    """What of spans lies in no hole."""
    left = list(spans)
    for start, end in holes:
        left = [
            part
            for a, b in left
            for part in ((a, min(b, start)), (max(a, end), b))
            if part[0] < part[1]
        ]
    return sorted(set(left))


def joined(spans: Iterable[Span], gap: float = 0.0) -> list[Span]:
    """Spans in order; those that overlap, touch, or lie at most ``gap`` apart are one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + gap:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged
