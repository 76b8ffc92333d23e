"""Alignment of feature maps by optimal transport, and the standard mixup operator."""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.functional.transport import sinkhorn


def mix(x: Tensor, y: Tensor, lam: float | Tensor) -> Tensor:
    """Standard mixup (eq. 3.1): ``lam * x + (1 - lam) * y``. λ weighs ``x``.

    Args:
        x: first operand, (B, ...).
        y: second operand, same shape as ``x``.
        lam: λ in [0, 1]: a number, a scalar tensor, or a tensor (B,) with one λ per example.

    Returns:
        A new tensor of the same shape, in the common dtype of ``x`` and ``y``, whatever the dtype
        of λ. Integers, such as the pixels of a uint8 image, are rounded to the nearest.

    Raises:
        ValueError: the shapes differ; λ is neither a scalar nor (B,); or λ is outside [0, 1]. The
            values of a λ on an accelerator are not checked, because that would synchronize.
    """
    if x.shape != y.shape:
        raise ValueError(f"mix needs two tensors of the same shape, got {x.shape} and {y.shape}.")
    if not isinstance(lam, Tensor):
        if not 0 <= lam <= 1:
            raise ValueError(f"mix needs lam in [0, 1], got {lam}.")
        return lam * x + (1 - lam) * y
    if lam.dim() > 0 and lam.shape != x.shape[:1]:
        raise ValueError(
            f"mix needs a scalar lam or one of shape {tuple(x.shape[:1])}, got {lam.shape}."
        )
    if lam.device.type == "cpu" and not bool(((lam >= 0) & (lam <= 1)).all()):
        raise ValueError(f"mix needs lam in [0, 1], got {lam.min():g} to {lam.max():g}.")
    dtype = torch.promote_types(x.dtype, y.dtype)
    exact = torch.promote_types(dtype, torch.float32)
    lam = lam.to(x.device, exact, non_blocking=True)
    lam = lam.view(-1, *[1] * (x.dim() - 1)) if lam.dim() else lam
    # lerp makes one pass over memory, a weighted sum three
    mixed = torch.lerp(y.to(exact), x.to(exact), lam)
    return mixed.to(dtype) if dtype.is_floating_point else mixed.round_().to(dtype)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Cost matrix (eq. 3.7): ``m_ij = |a_i - b_j|^2``, summed over channels and not normalized.

    Args:
        a: features at N positions, (B, C, N).
        b: features at M positions, (B, C, M).

    Returns:
        (B, N, M), float32 (float64 for float64 input). No tensor of size (B, N, M, C) is built.
    """
    dtype = exact_dtype(a)
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.to(dtype), b.to(dtype)
        # Far from the origin, the expanded square loses digits by cancellation. A common shift
        # changes no distance, so both sets are centered at the mean of the first.
        center = a.mean(-1, keepdim=True)
        a, b = a - center, b - center
        norms = a.square().sum(1)[:, :, None] + b.square().sum(1)[:, None, :]
        return torch.baddbmm(norms, a.mT, b, alpha=-2).clamp_(min=0)


def align(
    a: Tensor,
    b: Tensor,
    eps: float = 0.1,
    iters: int = 100,
    normalize_cost: bool = False,
    tol: float | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Align two feature maps by optimal transport (eqs. 3.7 to 3.11).

        R = N P*,   A~ = A' R^T,   A~' = A R

    P* is the entropic transport plan between the N = H W positions of A and those of A'. Column i
    of A~ is a convex combination of the columns of A' that correspond to column i of A. So
    ``a_aligned`` has the geometry of ``a`` and the appearance of ``b``; mix it with ``a``, and
    ``b_aligned`` with ``b`` (see :func:`mix`).

    The plan is detached (Algorithm 1, line 23): gradients flow through the features only.

    Args:
        a: A, (B, C, H, W).
        b: A', same shape.
        eps: entropy weight, in the units of the squared distance between features.
        iters: number of Sinkhorn iterations. With 0, a softmax over rows replaces the plan of
            ``a_aligned``, and a softmax over columns that of ``b_aligned`` (Table 3.9), so both
            remain convex combinations.
        normalize_cost: whether to divide each cost matrix by its maximum, which makes ``eps``
            relative. Not in the thesis.
        tol: tolerance of an early stop, see :func:`sinkhorn`.

    Returns:
        ``a_aligned`` A~, in the dtype of ``b``, and ``b_aligned`` A~', in the dtype of ``a``, both
        (B, C, H, W).

    Raises:
        ValueError: the maps are not 4-D, their shapes differ, eps <= 0, or iters < 0.
    """
    rows, columns = assignment(a, b, eps, iters, normalize_cost, tol)
    columns_a, columns_b = a.flatten(2), b.flatten(2)
    return _gather(columns_b, rows.mT).view_as(a), _gather(columns_a, columns).view_as(b)


@torch.no_grad()
def assignment(
    a: Tensor,
    b: Tensor,
    eps: float = 0.1,
    iters: int = 100,
    normalize_cost: bool = False,
    tol: float | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Assignment matrix R = N P* between the positions of two feature maps (§3.3.2).

    P* is the transport plan (eq. 3.9). The entry r_ij is the probability that column i of A
    corresponds to column j of A'. Arguments and errors: see :func:`align`.

    Returns:
        Two matrices (B, N, N): one for A~, whose rows sum to 1, and one for A~', whose columns
        sum to 1. They are the same tensor unless ``iters`` is 0. float32 (float64 for float64
        input), detached.
    """
    if a.dim() != 4 or a.shape != b.shape:
        raise ValueError(
            f"align needs two maps (B, C, H, W) of the same shape, got {a.shape} and {b.shape}."
        )
    cost = squared_distances(a.flatten(2), b.flatten(2))
    if normalize_cost:
        cost = cost / cost.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(cost.dtype).tiny)
    rows = columns = sinkhorn(cost, eps, iters, axis="row", tol=tol) * cost.shape[-1]
    if iters == 0:
        columns = sinkhorn(cost, eps, 0, axis="column") * cost.shape[-1]
    return rows, columns


def correspondences(assignment: Tensor, top: int = 2, least: float = 0.5) -> tuple[Tensor, Tensor]:
    """Strongest correspondences of each position, and their weights.

    Args:
        assignment: R of :func:`assignment`, (..., N, M), rows that sum to 1.
        top: number of correspondences per position, 1 to M.
        least: threshold in [0, 1], as a fraction of the largest entry of the row. Weaker
            correspondences get weight 0.

    Returns:
        Columns j of the ``top`` largest entries of each row, (..., N, top) int64, largest first;
        and the entries r_ij, (..., N, top), or 0 below the threshold.

    Raises:
        ValueError: ``top`` or ``least`` is out of range, or R has less than two dimensions.
    """
    if assignment.dim() < 2 or not 1 <= top <= assignment.shape[-1]:
        raise ValueError(
            f"correspondences needs an assignment (..., N, M) and top in [1, M], got "
            f"{tuple(assignment.shape)} and top={top}."
        )
    if not 0 <= least <= 1:
        raise ValueError(f"correspondences needs least in [0, 1], got {least}.")
    share, index = assignment.topk(top, -1)
    return index, torch.where(share >= least * share[..., :1], share, 0)


def _gather(columns: Tensor, assignment: Tensor) -> Tensor:
    """(B, C, N) times (B, N, M): computed in the dtype of the plan, returned in that of columns."""
    with torch.autocast(columns.device.type, enabled=False):
        return (columns.to(assignment.dtype) @ assignment).to(columns.dtype)
