"""Mixup (eq. 3.1) and alignment (eqs. 3.7 to 3.11) of one pair of maps, by loops over positions."""

from __future__ import annotations

import torch
from reference.transport import sinkhorn
from torch import Tensor


def mix(x: Tensor, y: Tensor, lam: float) -> Tensor:
    """Standard mixup (eq. 3.1)."""
    return lam * x + (1 - lam) * y


def cost(a: Tensor, b: Tensor) -> Tensor:
    """Cost (eq. 3.7): m_ij = |a_i - b_j|^2 for columns of (C, N) and (C, M)."""
    m = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64)
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            for c in range(a.shape[0]):
                m[i, j] += (float(a[c, i]) - float(b[c, j])) ** 2
    return m


def align(
    a: Tensor, b: Tensor, eps: float, iters: int, normalize_cost: bool = False
) -> tuple[Tensor, Tensor]:
    """Alignment (eqs. 3.10 and 3.11) of maps (C, H, W); R is detached (Algorithm 1, line 23).

    Without iterations, each side uses the plan that makes it a convex combination.
    """
    columns_a, columns_b = a.flatten(1), b.flatten(1)
    m = cost(columns_a.detach(), columns_b.detach())
    m = m / m.max() if normalize_cost else m
    r = len(m)
    rows, columns = r * sinkhorn(m, eps, iters, "row"), r * sinkhorn(m, eps, iters, "column")
    # A~ = A' R^T: its column i is sum_j a'_j r_ij.  A~' = A R: its column j is sum_i a_i r_ij.
    a_aligned = [sum(float(rows[i, j]) * columns_b[:, j] for j in range(r)) for i in range(r)]
    b_aligned = [sum(float(columns[i, j]) * columns_a[:, i] for i in range(r)) for j in range(r)]
    return torch.stack(a_aligned, 1).view_as(a), torch.stack(b_aligned, 1).view_as(b)
