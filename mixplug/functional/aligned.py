"""Alignment of feature maps by optimal transport, and the standard mixup operator."""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.functional.transport import sinkhorn


def mix(x: Tensor, y: Tensor, lam: float | Tensor) -> Tensor:
    """Standard mixup: ``lam * x + (1 - lam) * y``, λ weighs ``x`` (3.1).

    Args:
        x: (B, ...) first operand.
        y: same shape as ``x``.
        lam: number in [0, 1], or tensor that is a scalar or (B,), one λ per example.

    Returns:
        A new tensor of ``x``'s shape, in the dtype of the operands, not of λ.

    Raises:
        ValueError: shapes differ, λ is no scalar or (B,), or outside [0, 1] (the values of a tensor
            on an accelerator are not read: that would wait for it).
    """
    if x.shape != y.shape:
        raise ValueError(f"mix needs two tensors of one shape, got {x.shape} and {y.shape}.")
    if not isinstance(lam, Tensor):
        if not 0 <= lam <= 1:
            raise ValueError(f"mix needs lam in [0, 1], got {lam}.")
        return lam * x + (1 - lam) * y
    if lam.dim() > 0 and lam.shape != x.shape[:1]:
        raise ValueError(f"mix needs lam scalar or of shape {tuple(x.shape[:1])}, got {lam.shape}.")
    if lam.device.type == "cpu" and not bool(((lam >= 0) & (lam <= 1)).all()):
        raise ValueError(f"mix needs lam in [0, 1], got {lam.min():g} to {lam.max():g}.")
    dtype = torch.promote_types(x.dtype, y.dtype)
    exact = torch.promote_types(dtype, torch.float32)
    lam = lam.to(x.device, exact, non_blocking=True)
    lam = lam.view(-1, *[1] * (x.dim() - 1)) if lam.dim() else lam
    return torch.lerp(y.to(exact), x.to(exact), lam).to(dtype)  # one pass where a sum takes three


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Cost ``m_ij = |a_i - b_j|^2``, summed over channels, not normalized (3.7).

    Args:
        a: (B, C, N) columns of N positions.
        b: (B, C, M).

    Returns:
        (B, N, M) in float32, or float64 if given. No (B, N, M, C) tensor is built.
    """
    dtype = exact_dtype(a)
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.to(dtype), b.to(dtype)
        # The expansion of the square cancels badly far from the origin; distances do not move
        # with it, so both sets are centered at the mean of the first.
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
    r"""Each of two feature maps re-made from the other's features, at the places that match.

        R = N P*,   A~ = A' R^T,   A~' = A R                                      (3.7)-(3.11)

    with P* the entropic plan between the N = H W positions of A and of A'. Column i of A~ is a
    convex combination of columns of A' that correspond to column i of A: ``a_aligned`` has the
    geometry of ``a`` and the appearance of ``b``, and goes with ``a`` in :func:`mix`.

    The plan carries no gradient (Algorithm 1, line 23); the features do, through R.

    Args:
        a: A, (B, C, H, W).
        b: A', same shape.
        eps: entropy weight, in the units of the squared distance between features.
        iters: Sinkhorn iterations; 0 only normalizes rows for ``a_aligned``, columns for
            ``b_aligned`` (Table 3.9), so that both remain convex combinations.
        normalize_cost: divide each cost matrix by its maximum, which makes ``eps`` relative.
            Not in the thesis.
        tol: early stop, see :func:`sinkhorn`.

    Returns:
        ``a_aligned`` A~ and ``b_aligned`` A~', both (B, C, H, W) in the dtype of their source.

    Raises:
        ValueError: the maps are not of one 4-D shape, eps <= 0 or iters < 0.
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
    r"""R = N P*, whose r_ij is the probability that column i of A corresponds to column j of A'.

    Arguments and errors as for :func:`align`, which has the equations.

    Returns:
        R (B, N, N) twice, whose rows (for A~) and whose columns (for A~') sum to 1; the same one
        unless ``iters`` is 0. float32, or float64 if given, without gradient.
    """
    if a.dim() != 4 or a.shape != b.shape:
        raise ValueError(
            f"align needs two (B, C, H, W) maps of one shape, got {a.shape}, {b.shape}."
        )
    cost = squared_distances(a.flatten(2), b.flatten(2))
    if normalize_cost:
        cost = cost / cost.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(cost.dtype).tiny)
    rows = columns = sinkhorn(cost, eps, iters, axis="row", tol=tol) * cost.shape[-1]
    if iters == 0:
        columns = sinkhorn(cost, eps, 0, axis="column") * cost.shape[-1]
    return rows, columns


def correspondences(assignment: Tensor, top: int = 2, least: float = 0.5) -> tuple[Tensor, Tensor]:
    """Where each position goes: those that have most of its mass, and how much of it.

    Args:
        assignment: R (..., N, M), rows that sum to 1, of :func:`assignment`.
        top: how many positions at most, 1 to M.
        least: share of the row's largest entry below which a position counts for nothing, [0, 1].

    Returns:
        Positions (..., N, top) int64, from the strongest, and their entries r_ij (..., N, top),
        0 where they count for nothing.

    Raises:
        ValueError: ``top`` or ``least`` out of range, or less than two dimensions.
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
    """(B, C, N) times (B, N, M), in the plan's precision, returned in the columns' own dtype."""
    with torch.autocast(columns.device.type, enabled=False):
        return (columns.to(assignment.dtype) @ assignment).to(columns.dtype)
