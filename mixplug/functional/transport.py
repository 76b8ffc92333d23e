"""Entropic optimal transport between two uniform measures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype

_LOG_RANGE = 70.0  # exp(-70) ~ 4e-31: far below any plan entry, far above float32's smallest 1e-38


def sinkhorn(
    cost: Tensor,
    eps: float = 0.1,
    iters: int = 100,
    axis: str = "row",
    tol: float | None = None,
) -> Tensor:
    r"""Entropic transport plan between two uniform measures, by Sinkhorn-Knopp [0], [1].

        P = argmin <P, cost> - eps H(P)   subject to   P 1 = 1/N,  P^T 1 = 1/M        (3.8)-(3.9)

    One iteration normalizes the rows and then the columns, from P = exp(-cost / eps). The first is
    made in the log domain, for any range of costs. After it every row holds at least 1/(N M) of
    the mass, since no column can be scaled by less than 1/M; likewise every column from then on.
    An entry hence grows by at most N M per iteration, and the iterations may go on as products of
    matrix and vector on the plan itself, re-centered every log(range) / log(N M) of them, without
    an underflow that a later iteration would miss.

    Args:
        cost: (..., N, M), any device. float64 is computed as such, all else in float32.
        eps: entropy weight in the units of ``cost``; a large one gives the uniform plan.
        iters: number of iterations, no stop that depends on data. 0 normalizes ``axis`` once
            (row 4 of Table 3.9, "similar to cross-attention").
        axis: 'row' or 'column', used only by ``iters=0``.
        tol: stop as soon as every row sum is within ``tol`` of 1/N. Costs a host sync for each
            check, so it is off (None) by default.

    Returns:
        (..., N, M) plan that sums to 1 per item, in ``cost``'s dtype if that is float32 or
        float64, else in float32. Columns are exact, rows up to convergence.

    Raises:
        ValueError: eps <= 0, iters < 0, an unknown axis, or an empty or less than 2-D cost.

    - [0]: Sinkhorn Distances, 2013, https://arxiv.org/abs/1306.0895
    - [1]: AlignMixup, 2022, https://arxiv.org/abs/2103.15375
    """
    if not eps > 0:
        raise ValueError(f"sinkhorn needs eps > 0, got eps={eps}.")
    if iters < 0:
        raise ValueError(f"sinkhorn needs iters >= 0, got iters={iters}.")
    if axis not in ("row", "column"):
        raise ValueError(f"sinkhorn needs axis 'row' or 'column', got {axis!r}.")
    if cost.dim() < 2 or 0 in cost.shape[-2:]:
        raise ValueError(f"sinkhorn needs a cost (..., N, M) with N, M >= 1, got {cost.shape}.")
    with torch.autocast(cost.device.type, enabled=False):
        log_kernel = cost.to(exact_dtype(cost)) / -eps
        if iters == 0:
            return _normalize_once(log_kernel, axis)
        return _iterate(log_kernel, iters, tol)


def _normalize_once(log_kernel: Tensor, axis: str) -> Tensor:
    dim = -1 if axis == "row" else -2
    return torch.softmax(log_kernel, dim) / log_kernel.shape[-1 if axis == "column" else -2]


def _iterate(log_kernel: Tensor, iters: int, tol: float | None) -> Tensor:
    n, m = log_kernel.shape[-2:]
    work = log_kernel.dtype
    # The potentials reach range(cost)/eps, say 5000, where float32 is 5e-4 coarse, and so would be
    # the plan, relatively. They are renewed seldom, so float64 costs next to nothing.
    if log_kernel.device.type != "mps":  # which has no float64
        log_kernel = log_kernel.double()
    u = -math.log(n) - torch.logsumexp(log_kernel, -1, keepdim=True)  # (..., N, 1)
    v = -math.log(m) - torch.logsumexp(log_kernel + u, -2, keepdim=True)  # (..., 1, M)
    plan = torch.exp(log_kernel + u + v).to(work)
    stride = max(1, int(_LOG_RANGE / math.log(max(n * m, 2))))
    for done in range(1, iters, stride):
        if tol is not None and bool((plan.sum(-1) - 1 / n).abs().max() <= tol):
            break
        a, b = _scale(plan, min(stride, iters - done))
        u = u + a.to(u.dtype).log().mT
        v = v + b.to(v.dtype).log()
        plan = torch.exp(log_kernel + u + v).to(work)
    return plan


def _scale(plan: Tensor, iters: int) -> tuple[Tensor, Tensor]:
    """Row and column factors (..., 1, N), (..., 1, M) of ``iters`` iterations on ``plan``."""
    n, m = plan.shape[-2:]
    transposed = plan.mT.contiguous()  # row vector times matrix is the fast one of batched products
    b = plan.new_ones(*plan.shape[:-2], 1, m)
    for _ in range(iters):
        a = (b @ transposed).mul_(n).reciprocal_()
        b = (a @ plan).mul_(m).reciprocal_()
    return a, b
