"""Transport plan (eqs. 3.8 and 3.9) by loops over floats: rows, then columns, of exp(-M / eps)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def sinkhorn(cost: Tensor, eps: float, iters: int, axis: str = "row") -> Tensor:
    """The plan of one cost matrix (N, M), float64, with marginals 1/N and 1/M."""
    log_kernel = [[-value / eps for value in row] for row in cost.double().tolist()]
    n, m = len(log_kernel), len(log_kernel[0])
    u, v = [0.0] * n, [0.0] * m
    for _ in range(iters):
        for i in range(n):
            u[i] = -math.log(n) - _logsumexp(log_kernel[i][j] + v[j] for j in range(m))
        for j in range(m):
            v[j] = -math.log(m) - _logsumexp(log_kernel[i][j] + u[i] for i in range(n))
    if iters == 0 and axis == "row":
        u = [-math.log(n) - _logsumexp(log_kernel[i][j] for j in range(m)) for i in range(n)]
    if iters == 0 and axis == "column":
        v = [-math.log(m) - _logsumexp(log_kernel[i][j] for i in range(n)) for j in range(m)]
    plan = [[math.exp(log_kernel[i][j] + u[i] + v[j]) for j in range(m)] for i in range(n)]
    return torch.tensor(plan, dtype=torch.float64)


def _logsumexp(values: Iterable[float]) -> float:
    values = list(values)
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))
