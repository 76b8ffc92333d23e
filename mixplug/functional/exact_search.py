"""Exact nearest-neighbor search in blocks.

Letters: Q queries, N gallery items, D width, k neighbors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype

METRICS = ("ip", "l2")
_SCORES = 1 << 28  # bytes of similarities held at a time
_ROWS = 1024  # queries at a time: enough for a matrix product at full speed
_NARROW = 16  # for smaller matrices, BLAS uses kernels that round differently
_TIED_ROWS = 64  # rows searched again at a time, since each may need a sort of the whole gallery


def nearest(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    metric: str = "ip",
    block: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Exact search for the k nearest gallery items of every query, in blocks smaller than Q x N.

    Items at the same distance are returned in the order of their ids, even if only some of them
    are among the k nearest. Distances are the same if their floating-point values are equal.
    Identical items get equal values in all blocks, provided that BLAS rounds alike in all products
    of at least 16 x 16, as observed. Smaller blocks are therefore padded to 16 x 16.

    Args:
        queries: (Q, D).
        gallery: (N, D).
        k: number of neighbors per query, at most N.
        metric: 'ip' is the inner product, largest first; 'l2' is the *squared* Euclidean distance,
            smallest first.
        block: numbers of queries and of gallery items per block. None is 1024 queries, and as many
            gallery items as give 256 MiB of scores.

    Returns:
        Inner products or squared distances (Q, k), float32 (float64 for float64 queries), and ids
        (Q, k) int64.

    Raises:
        ValueError: shapes do not match, a value is not finite, the metric is unknown, or k is not
            in [1, N].
    """
    if metric not in METRICS:
        raise ValueError(f"nearest needs metric in {METRICS}, got {metric!r}.")
    check_pair("nearest", queries, gallery)
    if not 1 <= k <= len(gallery):
        raise ValueError(
            f"nearest needs k between 1 and {len(gallery)}, the size of the gallery, got {k}."
        )
    dtype = exact_dtype(queries)
    rows, columns = block or (_ROWS, max(_NARROW, _SCORES // (_ROWS * dtype.itemsize)))
    values = queries.new_empty(len(queries), k, dtype=dtype)
    ids = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    with torch.autocast(queries.device.type, enabled=False), torch.no_grad():
        for start in range(0, len(queries), rows):
            part = queries[start : start + rows].to(dtype)
            result = _nearest_of_rows(part, gallery, k, metric, columns)
            values[start : start + rows], ids[start : start + rows] = result
    return values, ids


def sort_by_distance(values: Tensor, ids: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
    """Sort neighbors (Q, k) by distance, and by id where distances are equal."""
    ids, order = ids.sort(dim=1, stable=True)
    values, by_value = values.gather(1, order).sort(dim=1, stable=True, descending=largest)
    return values, ids.gather(1, by_value)


def resolve_ties(
    values: Tensor,
    ids: Tensor,
    k: int,
    largest: bool,
    search_all: Callable[[Tensor], tuple[Tensor, Tensor]] | None,
) -> tuple[Tensor, Tensor]:
    """Reduce k + 1 sorted neighbors to k, with ties in the order of ids.

    A top-k search may return any of several equal values. Therefore it is asked for one neighbor
    more. If that one is as far as the k-th, the search may have dropped a tied item with a smaller
    id, and the row is searched again.

    Args:
        values: sorted distances, (Q, k + 1), or (Q, k) if the gallery has only k items.
        ids: same shape.
        k: number of neighbors to return.
        largest: whether large values come first.
        search_all: function from row indices (Q',) to at least k neighbors of these rows, with
            ties in the order of ids. With None, no row is searched again.

    Returns:
        Distances and ids, (Q, k) each.
    """
    equal = values[:, 1:] == values[:, :-1]
    inside = equal[:, : k - 1].any(1).nonzero()[:, 0]
    cut = equal[:, k - 1 :].any(1).nonzero()[:, 0]
    values, ids = values[:, :k].contiguous(), ids[:, :k].contiguous()
    values[inside], ids[inside] = sort_by_distance(values[inside], ids[inside], largest)
    if search_all is None or not len(cut):
        return values, ids
    for rows in cut.split(_TIED_ROWS):
        all_values, all_ids = search_all(rows)
        values[rows], ids[rows] = all_values[:, :k], all_ids[:, :k]
    return values, ids


def check_embeddings(caller: str, name: str, t: Tensor, least: int = 1) -> None:
    """Require a matrix of finite embeddings with at least ``least`` rows.

    Args:
        caller: name of the function for the error message.
        name: name of the argument for the error message.
        t: embeddings, (B, D).
        least: smallest allowed B.

    Raises:
        ValueError: wrong shape, or a value is not finite.
    """
    if t.dim() != 2 or len(t) < least or not t.shape[1]:
        raise ValueError(
            f"{caller} needs {name} (B, D) with B >= {least} and D >= 1, got {tuple(t.shape)}."
        )
    if not torch.isfinite(torch.stack(torch.aminmax(t))).all():  # aminmax propagates NaN
        raise ValueError(f"{caller} needs finite {name}, got NaN or infinite values.")


def check_pair(caller: str, queries: Tensor, gallery: Tensor) -> None:
    """Require two sets of finite embeddings, (Q, D) and (N, D), of the same width.

    Raises:
        ValueError: wrong shapes, or a value is not finite.
    """
    check_embeddings(caller, "queries", queries)
    check_embeddings(caller, "gallery", gallery)
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{caller} needs queries and gallery of the same width, got {queries.shape[1]} and "
            f"{gallery.shape[1]}."
        )


def _nearest_of_rows(
    queries: Tensor, gallery: Tensor, k: int, metric: str, columns: int
) -> tuple[Tensor, Tensor]:
    """Top k of the gallery for some queries, merged over blocks of ascending ids."""
    largest = metric == "ip"
    parts: Sequence[Tensor] = gallery.split(columns)
    values = queries.new_empty(len(queries), 0)
    ids = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for number, part in enumerate(parts):
        scores = _scores(queries, part.to(queries.dtype), metric)
        new, index = _top(scores, min(k, len(part)), largest)
        values, ids = torch.cat([values, new], 1), torch.cat([ids, index + number * columns], 1)
        if number:  # both parts are sorted and the first has smaller ids: a stable sort is enough
            values, order = values.sort(dim=1, stable=True, descending=largest)
            values, ids = values[:, :k], ids.gather(1, order[:, :k])
    return values, ids


def _scores(queries: Tensor, part: Tensor, metric: str) -> Tensor:
    """Similarities or squared distances, (rows, columns)."""
    rows, columns = len(queries), len(part)
    product = _padded(queries) @ _padded(part).mT
    product = product[:rows, :columns]
    if metric == "ip":
        return product
    squares = (queries * queries).sum(1)[:, None], (part * part).sum(1)
    return product.mul_(-2).add_(squares[1]).add_(squares[0]).clamp_(min=0)


def _padded(t: Tensor) -> Tensor:
    short = _NARROW - len(t)
    return torch.cat([t, t.new_zeros(short, t.shape[1])]) if short > 0 else t


def _top(scores: Tensor, k: int, largest: bool) -> tuple[Tensor, Tensor]:
    """Top k of every row, with ties in the order of ids."""

    def search_all(rows: Tensor) -> tuple[Tensor, Tensor]:
        return scores[rows].sort(dim=1, stable=True, descending=largest)

    values, ids = scores.topk(min(k + 1, scores.shape[1]), dim=1, largest=largest)
    return resolve_ties(values, ids, k, largest, search_all)
