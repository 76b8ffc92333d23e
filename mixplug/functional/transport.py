"""Entropic optimal transport between two uniform measures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype

# exp(-70) ~ 4e-31 is far below any entry of a plan and far above the smallest float32, 1e-38.
_LOG_RANGE = 70.0


def sinkhorn(
    cost: Tensor,
    eps: float = 0.1,
    iters: int = 100,
    axis: str = "row",
    tol: float | None = None,
) -> Tensor:
    r"""Entropic transport plan between uniform measures (eqs. 3.8, 3.9), by Sinkhorn [0], [1].

        P = argmin <P, cost> - eps H(P)   subject to   P 1 = 1/N,  P^T 1 = 1/M

    The iterations start from P = exp(-cost / eps). Each one normalizes the rows, then the columns.
    The first iteration runs in the log domain, so any range of costs is allowed. After it, every
    row holds at least 1/(N M) of the mass, because no column is scaled by less than 1/M. The same
    holds for every column from then on. An entry therefore grows by at most a factor N M per
    iteration. So the following iterations can use fast matrix-vector products on the plan itself:
    an entry that underflows stays negligible, provided that the plan is computed anew in the log
    domain after every log(range) / log(N M) iterations.

    Args:
        cost: (..., N, M), on any device. float64 costs are computed in float64, all others in
            float32.
        eps: weight of the entropy, in the units of ``cost``. A large value gives the uniform plan.
        iters: number of iterations; all are run unless ``tol`` is given. 0 normalizes ``axis`` once
            (Table 3.9, "similar to cross-attention").
        axis: 'row' or 'column', used only if ``iters`` is 0.
        tol: stop when every row sum is within ``tol`` of 1/N. Each check waits for the device, so
            None (no check) is the default.

    Returns:
        Plan, (..., N, M), float32 (float64 for float64 costs). The entries of each plan sum to 1.
        Column sums are exact, row sums up to convergence.

    Raises:
        ValueError: eps <= 0, iters < 0, ``axis`` is unknown, or the cost is empty or has less than
            two dimensions.

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
        raise ValueError(f"sinkhorn needs cost (..., N, M) with N, M >= 1, got {cost.shape}.")
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
    # The potentials u, v reach range(cost)/eps, e.g. 5000. There float32 has a resolution of 5e-4,
    # which would be the relative error of the plan. float64 costs little, as u, v change rarely.
    if log_kernel.device.type != "mps":  # MPS has no float64
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
    """Row factors (..., 1, N) and column factors (..., 1, M) after ``iters`` iterations."""
    n, m = plan.shape[-2:]
    transposed = plan.mT.contiguous()  # row vector times matrix is the fastest batched product
    b = plan.new_ones(*plan.shape[:-2], 1, m)
    for _ in range(iters):
        a = (b @ transposed).mul_(n).reciprocal_()
        b = (a @ plan).mul_(m).reciprocal_()
    return a, b
