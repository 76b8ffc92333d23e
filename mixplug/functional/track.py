"""Discover objects with attention heads and track them in other frames (section 6.4).

Letters: B frames, k objects, h heads, N patches in a grid, P prefix tokens of which the first is
the class token, D width. Everything is computed in float32, or in float64 for float64 inputs, also
under autocast. Nothing here is learned, so callers run it without gradients.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.functional.transport import sinkhorn

SCALES = ("head", "dim")
PLANS = ("columns", "joint")
MASKS = ("binary", "soft")


def cls_attention(q: Tensor, k: Tensor, prefix: int = 1, scale: str = "head") -> Tensor:
    r"""Attention of the class token to the patches, for every head (6.1).

        A^i = softmax(Q^i (K^i)^T / s),   row of the class token, columns of the patches

    The softmax is over all P + N tokens, so rows sum to at most 1. No other row is computed.

    Args:
        q: Q, (B, h, P + N, D / h).
        k: K, of the same shape.
        prefix: P >= 1, the class token first.
        scale: s: 'head' is sqrt(D / h), as in the network's own attention; 'dim' is sqrt(D), as
            printed in the thesis.

    Returns:
        (B, h, N).

    Raises:
        ValueError: q and k differ in shape, P not in [1, P + N), an unknown scale.
    """
    if q.dim() != 4 or q.shape != k.shape or not 1 <= prefix < q.shape[2]:
        raise ValueError(
            f"cls_attention needs q and k (B, h, P + N, D / h) with 1 <= P < P + N, got "
            f"{tuple(q.shape)} and {tuple(k.shape)} with prefix={prefix}."
        )
    _require(scale, SCALES, "scale", "cls_attention")
    width = q.shape[3] * (q.shape[1] if scale == "dim" else 1)
    with torch.autocast(q.device.type, enabled=False):
        dtype = exact_dtype(q)
        logits = q[:, :, :1].to(dtype) @ k.to(dtype).mT / math.sqrt(width)
        return logits.softmax(-1)[:, :, 0, prefix:]


def object_prototypes(attention: Tensor, queries: Tensor) -> Tensor:
    """Objects in the space of queries, ``P = A Q`` (6.2).

    Args:
        attention: A, (B, k, N), of k heads.
        queries: queries of the patches, heads concatenated, (B, N, D).

    Returns:
        P, (B, k, D).
    """
    return _pool(attention, queries)


def object_plan(
    prototypes: Tensor,
    patches: Tensor,
    eps: float = 0.05,
    iters: int = 30,
    normalize: bool = True,
    plan: str = "columns",
) -> Tensor:
    """Transport plan between objects and patches, ``M* = SK(exp(P Z^T / ε))`` (6.4).

    Args:
        prototypes: P, (B, k, D).
        patches: Z, (B, N, D), the output embeddings of the patches.
        eps: ε > 0, weight of the entropy.
        iters: iterations of Sinkhorn-Knopp, without an early stop.
        normalize: whether the rows of Z are scaled to length 1; False is (6.4) as printed.
        plan: 'columns' sums to 1 over the objects for every patch, and to about N / k over the
            patches for every object. 'joint' is the equation as printed: a joint probability whose
            rows sum to 1 / k and columns to 1 / N.

    Returns:
        M*, (B, k, N). The sums of columns are exact, those of rows up to convergence.

    Raises:
        ValueError: shapes do not fit, an unknown plan; and see
            :func:`mixplug.functional.sinkhorn`.
    """
    _require(plan, PLANS, "plan", "object_plan")
    _require_fit(prototypes, patches, "object_plan")
    return _plan(prototypes, _embeddings(patches, normalize), eps, iters, plan)


def refine_prototypes(
    prototypes: Tensor,
    patches: Tensor,
    eps: float = 0.05,
    iters: int = 30,
    normalize: bool = True,
    plan: str = "columns",
) -> Tensor:
    """Spatially distinct objects, ``P' = M* Z`` (6.5), with M* and Z as in :func:`object_plan`.

    Returns:
        P', (B, k, D).
    """
    _require(plan, PLANS, "plan", "refine_prototypes")
    _require_fit(prototypes, patches, "refine_prototypes")
    embeddings = _embeddings(patches, normalize)
    return _pool(_plan(prototypes, embeddings, eps, iters, plan), embeddings)


def track(prototypes: Tensor, keys: Tensor, scale: str | float = "dim") -> Tensor:
    """Attention of objects to the patches of a frame, ``T = softmax(P K^T / s)`` (6.3), or (6.6).

    Args:
        prototypes: P, which gives T (6.3), or P', which gives T' (6.6); (..., k, D).
        keys: keys of the patches, heads concatenated, (..., N, D). Leading dimensions broadcast,
            so objects of one frame (B, 1, k, D) are tracked over T frames (B, T, N, D) at once.
        scale: s: 'dim' is sqrt(D), as printed; or a number > 0.

    Returns:
        (..., k, N); every row sums to 1.

    Raises:
        ValueError: widths differ, or an unknown scale.
    """
    _require_fit(prototypes, keys, "track")
    if scale != "dim" and (isinstance(scale, str) or not scale > 0):
        raise ValueError(f"track needs scale 'dim' or a number > 0, got {scale!r}.")
    s = math.sqrt(keys.shape[-1]) if isinstance(scale, str) else scale
    with torch.autocast(keys.device.type, enabled=False):
        dtype = exact_dtype(keys)
        return (prototypes.to(dtype) / s @ keys.to(dtype).mT).softmax(-1)


def patch_masks(attention: Tensor, kind: str = "binary") -> Tensor:
    """Masks of objects over patches, which (6.7) multiplies the frame with.

    Args:
        attention: T or T', (..., k, N).
        kind: 'binary' is 1 where the attention exceeds its mean over the patches of the frame, and
            0 elsewhere. 'soft' is the attention itself, (6.7) as printed.

    Returns:
        (..., k, N) in the dtype of ``attention``.

    Raises:
        ValueError: an unknown kind.
    """
    _require(kind, MASKS, "kind", "patch_masks")
    if kind == "soft":
        return attention
    return (attention > attention.mean(-1, keepdim=True)).to(attention.dtype)


def object_masks(
    attention: Tensor, grid: tuple[int, int], size: tuple[int, int], kind: str = "binary"
) -> Tensor:
    """Masks of objects over pixels: :func:`patch_masks`, upsampled to the frame (6.7).

    Both kinds are upsampled by nearest neighbor, so that a pixel has the value of its patch.

    Args:
        attention: T or T', (B, k, N).
        grid: (rows, columns) of the N patches.
        size: (H, W) of the frame, any.
        kind: 'binary' or 'soft'.

    Returns:
        (B, k, H, W) in the dtype of ``attention``.

    Raises:
        ValueError: N does not fit the grid, or an unknown kind.
    """
    _require_grid(attention, grid, "object_masks")
    masks = patch_masks(attention, kind).unflatten(-1, grid)
    return F.interpolate(masks, size, mode="nearest-exact")


def masked_frames(frames: Tensor, masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Frames multiplied by every mask, ``X ⊙ T^i`` (6.7), without building masks in pixels.

    Args:
        frames: X, (B, C, H, W), with H and W multiples of the grid's.
        masks: (B, k, N) of :func:`patch_masks`.
        grid: (rows, columns) of the N patches.

    Returns:
        (B, k, C, H, W) in the dtype of ``frames``.

    Raises:
        ValueError: N does not fit the grid, or the frame is not a multiple of the grid.
    """
    _require_grid(masks, grid, "masked_frames")
    (rows, columns), (height, width) = grid, frames.shape[-2:]
    if height % rows or width % columns:
        raise ValueError(
            f"masked_frames needs frames whose size is a multiple of the grid {rows} x {columns}, "
            f"got {height} x {width}."
        )
    tiles = frames.unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1))  # (B, C, gh, p, gw, p)
    gates = masks.to(frames.dtype).unflatten(-1, grid)  # (B, k, gh, gw)
    return (tiles[:, None] * gates[:, :, None, :, None, :, None]).flatten(-2).flatten(-3, -2)


def _plan(prototypes: Tensor, embeddings: Tensor, eps: float, iters: int, plan: str) -> Tensor:
    with torch.autocast(embeddings.device.type, enabled=False):
        joint = sinkhorn(-(prototypes.to(embeddings.dtype) @ embeddings.mT), eps, iters)
        return joint * joint.shape[-1] if plan == "columns" else joint


def _embeddings(patches: Tensor, normalize: bool) -> Tensor:
    """Z in the precision in which the plan is computed."""
    exact = patches.to(exact_dtype(patches))
    return F.normalize(exact, dim=-1) if normalize else exact


def _pool(weights: Tensor, vectors: Tensor) -> Tensor:
    with torch.autocast(vectors.device.type, enabled=False):
        dtype = exact_dtype(vectors)
        return weights.to(dtype) @ vectors.to(dtype)


def _require(value: str, allowed: tuple[str, ...], key: str, who: str) -> None:
    if value not in allowed:
        raise ValueError(f"{who} needs {key} in {allowed}, got {value!r}.")


def _require_fit(prototypes: Tensor, vectors: Tensor, who: str) -> None:
    if min(prototypes.dim(), vectors.dim()) < 2 or prototypes.shape[-1] != vectors.shape[-1]:
        raise ValueError(
            f"{who} needs objects (..., k, D) and patches (..., N, D) of the same D, got "
            f"{tuple(prototypes.shape)} and {tuple(vectors.shape)}."
        )


def _require_grid(attention: Tensor, grid: tuple[int, int], who: str) -> None:
    if attention.dim() != 3 or attention.shape[-1] != grid[0] * grid[1]:
        raise ValueError(
            f"{who} needs (B, k, N) of a grid {grid[0]} x {grid[1]}, got {tuple(attention.shape)}."
        )
