"""Label propagation: labels of past frames, transferred to a new frame by feature similarity.

It evaluates video object segmentation (§6.5.3). Letters: F labeled frames (the context), N
positions in a grid, D width, K classes; class 0 is the background.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype


def propagate(
    query: Tensor,
    context: Tensor,
    labels: Tensor,
    topk: int = 5,
    temperature: float = 0.1,
    radius: int | None = 12,
    *,
    grid: tuple[int, int],
    block: int = 256,
) -> Tensor:
    r"""Labels of a frame, averaged over the most similar positions of the context frames [0].

        y_n = \sum_{(f,m) \in T_n} softmax_{(f,m) \in T_n}(q_n \cdot c_{fm} / \tau)\, y_{fm}

    T_n holds the ``topk`` most similar positions m of all frames f, among those whose row and
    column differ from the row and column of n by at most ``radius``. If several positions are
    equally similar, T_n still holds exactly ``topk`` of them, while [0] takes all that tie with
    the last one.

    Similarities are computed for ``block`` positions n at a time, so at most F * N * block of them
    are in memory.

    Args:
        query: features q of the new frame, usually of norm 1, (N, D).
        context: features c of the context frames, (F, N, D).
        labels: labels y of the context frames, (F, N, K), of any floating dtype.
        topk: size of T_n. If fewer positions are within the radius, T_n holds all of them.
        temperature: τ > 0.
        radius: radius >= 0, in positions; None sets no limit.
        grid: (rows, columns) of the N positions.
        block: number of positions n computed at a time. It changes time and memory, but not the
            result.

    Returns:
        Labels, (N, K), float32 (float64 for float64 ``query``).

    Raises:
        ValueError: shapes do not match, or a number is out of range.

    - [0]: Emerging Properties in Self-Supervised Vision Transformers, 2021,
      https://arxiv.org/abs/2104.14294
    """
    _require_shapes(query, context, labels, grid)
    _require_numbers(topk, temperature, radius, block)
    with torch.autocast(query.device.type, enabled=False):
        dtype = exact_dtype(query)
        query = query.to(dtype) / temperature
        # Positions before frames, so that all features near a block of queries are contiguous.
        context, labels = (t.to(dtype).transpose(0, 1).contiguous() for t in (context, labels))
        parts = [
            _propagated(start, part, context, labels, topk, radius, grid[1])
            for start, part in zip(range(0, len(query), block), query.split(block), strict=True)
        ]
        return torch.cat(parts)


def label_map(
    labels: Tensor, grid: tuple[int, int], size: tuple[int, int], stretch: bool = True
) -> Tensor:
    """Class of every pixel: labels are interpolated to the frame size, and the largest one wins.

    Args:
        labels: labels of the positions, (N, K), as :func:`propagate` returns them.
        grid: (rows, columns) of the N positions.
        size: (H, W) of the frame in pixels; the interpolation is bilinear.
        stretch: whether to scale the labels of each class to [0, 1] over the frame before classes
            are compared, as DINO does. This favors small objects over the background. Classes with
            the same label everywhere are not scaled.

    Returns:
        (H, W) int64 in [0, K). Ties go to the smallest class index.

    Raises:
        ValueError: the shape of ``labels`` does not match the grid.
    """
    if labels.dim() != 2 or len(labels) != grid[0] * grid[1]:
        raise ValueError(
            f"label_map needs labels (N, K) of a grid {grid[0]} x {grid[1]}, got "
            f"{tuple(labels.shape)}."
        )
    maps = labels.T.unflatten(1, grid)[None]
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)[0]  # (K, H, W)
    if stretch:
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        # A class with a constant label is absent or fills the frame, so it is not scaled.
        maps = torch.where(high > low, (maps - low) / (high - low), maps)
    return maps.argmax(0)


def _propagated(
    start: int,
    query: Tensor,
    context: Tensor,
    labels: Tensor,
    topk: int,
    radius: int | None,
    columns: int,
) -> Tensor:
    """Labels (b, K) of the b positions from ``start`` on.

    Args:
        start: first position.
        query: features of these positions, (b, D).
        context: features of the context, (N, F, D).
        labels: labels of the context, (N, F, K).
        topk: see :func:`propagate`.
        radius: see :func:`propagate`.
        columns: number of columns of the grid.
    """
    count, frames = context.shape[:2]
    reach = slice(0, count)
    if radius is not None:  # skip grid rows that are too far from all of the b positions
        first = max(0, (start // columns - radius) * columns)
        last = ((start + len(query) - 1) // columns + radius + 1) * columns
        reach = slice(first, min(count, last))
    similarity = query @ context[reach].flatten(0, 1).T  # (b, M * F)
    if radius is not None:
        n = torch.arange(start, start + len(query), device=query.device)[:, None]
        m = torch.arange(reach.start, reach.stop, device=query.device)
        row_offset, column_offset = n // columns - m // columns, n % columns - m % columns
        far = (row_offset.abs() > radius) | (column_offset.abs() > radius)  # (b, M)
        similarity.view(len(query), -1, frames).masked_fill_(far[:, :, None], -torch.inf)
    top, ids = similarity.topk(min(topk, similarity.shape[1]), sorted=False)
    return torch.einsum("nt,ntk->nk", top.softmax(1), labels[reach].flatten(0, 1)[ids])


def _require_shapes(query: Tensor, context: Tensor, labels: Tensor, grid: tuple[int, int]) -> None:
    matching = (
        query.dim() == 2
        and context.dim() == labels.dim() == 3
        and context.shape[1:] == query.shape
        and context.shape[:2] == labels.shape[:2]
        and len(query) == grid[0] * grid[1]
        and context.numel() > 0
    )
    if not matching:
        raise ValueError(
            f"propagate needs query (N, D), context (F, N, D) and labels (F, N, K) with F >= 1 and "
            f"N = {grid[0]} x {grid[1]}, got {tuple(query.shape)}, {tuple(context.shape)} and "
            f"{tuple(labels.shape)}."
        )


def _require_numbers(topk: int, temperature: float, radius: int | None, block: int) -> None:
    in_range = topk >= 1 and temperature > 0 and block >= 1 and (radius is None or radius >= 0)
    if not in_range:
        raise ValueError(
            f"propagate needs topk >= 1, temperature > 0, radius >= 0 or None and block >= 1, got "
            f"{topk=}, {temperature=}, {radius=} and {block=}."
        )
