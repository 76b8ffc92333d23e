"""Label propagation position by position, in Python floats of float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def propagated(
    query: Tensor,
    context: Tensor,
    labels: Tensor,
    topk: int,
    temperature: float,
    radius: int | None,
    grid: tuple[int, int],
) -> Tensor:
    """Labels (N, K) from query (N, D), context (F, N, D) and its labels (F, N, K)."""
    rows, columns = grid
    out = []
    for n, q in enumerate(query.double()):
        near = []
        for f, frame in enumerate(context.double()):
            for m in range(rows * columns):
                down = abs(n // columns - m // columns)
                along = abs(n % columns - m % columns)
                if radius is None or max(down, along) <= radius:
                    near.append((float(q @ frame[m]) / temperature, f, m))
        best = sorted(near, reverse=True)[:topk]
        weights = [math.exp(s - best[0][0]) for s, _, _ in best]
        total = sum(w * labels[f, m].double() for w, (_, f, m) in zip(weights, best, strict=True))
        out.append(total / sum(weights))
    return torch.stack(out)
