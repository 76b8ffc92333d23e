"""Labels of past frames carried to a new one by the similarity of features (section 6.5.3).

Letters: F frames that are known, N positions in a grid, D width, K classes, of which class 0 is the
background.
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
    r"""Labels of a frame, of the positions in other frames that are most like its own, as in [0].

        y_n = \sum_{(f,m) \in T_n} softmax_{(f,m) \in T_n}(q_n \cdot c_{fm} / \tau)\, y_{fm}

    T_n are the ``topk`` most similar of the positions m of all frames f whose row and column both
    differ from those of n by ``radius`` at most. Exactly ``topk`` are taken where several are
    alike; [0] takes all that equal the last one.

    Similarities are made for ``block`` positions n at a time, so none of them is of more than
    F * N * block.

    Args:
        query: q, (N, D), of length 1 as a rule.
        context: c, (F, N, D).
        labels: y of the context, (F, N, K), in any floating dtype.
        topk: size of T_n; where fewer positions are near enough, T_n is all of them.
        temperature: τ > 0.
        radius: >= 0, in positions; None restricts nothing.
        grid: (rows, columns) of the N positions.
        block: positions n at a time. It changes time and memory, not the result.

    Returns:
        (N, K), float64 if ``query`` is, else float32.

    Raises:
        ValueError: shapes do not fit, or a number is out of its range.

    - [0]: Emerging Properties in Self-Supervised Vision Transformers, 2021,
      https://arxiv.org/abs/2104.14294
    """
    _require_fit(query, context, labels, grid)
    _require_numbers(topk, temperature, radius, block)
    with torch.autocast(query.device.type, enabled=False):
        dtype = exact_dtype(query)
        query = query.to(dtype) / temperature
        # Frames within positions: what is near a block of queries then lies side by side.
        context, labels = (t.to(dtype).transpose(0, 1).contiguous() for t in (context, labels))
        parts = [
            _propagated(start, part, context, labels, topk, radius, grid[1])
            for start, part in zip(range(0, len(query), block), query.split(block), strict=True)
        ]
        return torch.cat(parts)


def label_map(
    labels: Tensor, grid: tuple[int, int], size: tuple[int, int], stretch: bool = True
) -> Tensor:
    """Which class every pixel is of: labels made as large as the frame, and the largest of them.

    Args:
        labels: (N, K), such as those of :func:`propagate`.
        grid: (rows, columns) of the N positions.
        size: (H, W) in pixels, to which labels are interpolated, linearly in both directions.
        stretch: whether each class that is anywhere is brought to [0, 1] over the frame before
            classes are compared, as DINO does: a small object then stands against its background.

    Returns:
        (H, W) int64 in [0, K); of classes that tie, the lowest.

    Raises:
        ValueError: N is not the grid's.
    """
    if labels.dim() != 2 or len(labels) != grid[0] * grid[1]:
        raise ValueError(
            f"label_map needs (N, K) of a grid {grid[0]} x {grid[1]}, got {tuple(labels.shape)}."
        )
    maps = labels.T.unflatten(1, grid)[None]
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)[0]  # (K, H, W)
    if stretch:
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        # A class of one value alone is that of no object, or of the whole frame: it stays.
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
    """Labels of positions ``start`` and so on: query is theirs, (b, D), of the others (N, F, .)."""
    count, frames = context.shape[:2]
    reach = slice(0, count)
    if radius is not None:  # rows of the grid that are too far from all of them are not looked at
        first = max(0, (start // columns - radius) * columns)
        last = ((start + len(query) - 1) // columns + radius + 1) * columns
        reach = slice(first, min(count, last))
    similarity = query @ context[reach].flatten(0, 1).T  # (b, M * F)
    if radius is not None:
        n = torch.arange(start, start + len(query), device=query.device)[:, None]
        m = torch.arange(reach.start, reach.stop, device=query.device)
        rows, along = n // columns - m // columns, n % columns - m % columns
        far = (rows.abs() > radius) | (along.abs() > radius)  # (b, M)
        similarity.view(len(query), -1, frames).masked_fill_(far[:, :, None], -torch.inf)
    top, ids = similarity.topk(min(topk, similarity.shape[1]), sorted=False)
    return torch.einsum("nt,ntk->nk", top.softmax(1), labels[reach].flatten(0, 1)[ids])


def _require_fit(query: Tensor, context: Tensor, labels: Tensor, grid: tuple[int, int]) -> None:
    fits = (
        query.dim() == 2
        and context.dim() == labels.dim() == 3
        and context.shape[1:] == query.shape
        and context.shape[:2] == labels.shape[:2]
        and len(query) == grid[0] * grid[1]
        and context.numel() > 0
    )
    if not fits:
        raise ValueError(
            f"propagate needs query (N, D), context (F, N, D) and labels (F, N, K) with F >= 1 and "
            f"N of a grid {grid[0]} x {grid[1]}, got {tuple(query.shape)}, {tuple(context.shape)} "
            f"and {tuple(labels.shape)}."
        )


def _require_numbers(topk: int, temperature: float, radius: int | None, block: int) -> None:
    in_range = topk >= 1 and temperature > 0 and block >= 1 and (radius is None or radius >= 0)
    if not in_range:
        raise ValueError(
            f"propagate needs topk >= 1, temperature > 0, radius >= 0 or None and block >= 1, got "
            f"{topk=}, {temperature=}, {radius=} and {block=}."
        )
