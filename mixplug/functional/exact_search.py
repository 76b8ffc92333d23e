"""Nearest neighbors, exactly and in blocks.

Letters: Q queries, N gallery items, D width, k neighbors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype

METRICS = ("ip", "l2")
_SCORES = 1 << 28  # bytes of similarities in flight
_ROWS = 1024  # queries at a time: a product of this height runs at full speed
_NARROW = 16  # below, BLAS takes kernels that round differently
_TIED_ROWS = 64  # searched again at a time, since that may sort all of the gallery


def nearest(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    metric: str = "ip",
    block: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    r"""The k nearest gallery items of every query, exactly, in blocks: never Q x N at a time.

    'ip' is the inner product, largest first; 'l2' the *squared* Euclidean distance, smallest first.
    Items at one distance come in the order of their ids, also where k cuts through them. Two
    distances are equal if their floating-point values are: equal items get equal values whatever
    the blocks, as far as BLAS rounds alike in all products of at least 16 x 16, which it was seen
    to do; smaller blocks are padded to that.

    Args:
        queries: (Q, D).
        gallery: (N, D).
        k: neighbors per query, at most N.
        metric: 'ip' or 'l2'.
        block: queries and gallery items at a time; None takes 1024 queries, and as much gallery as
            makes 256 MiB of scores.

    Returns:
        Distances (Q, k), float32 or float64 if the queries are, and ids (Q, k) int64.

    Raises:
        ValueError: shapes do not fit, a value is not finite, an unknown metric, or k > N.
    """
    if metric not in METRICS:
        raise ValueError(f"nearest needs metric in {METRICS}, got {metric!r}.")
    check_pair("nearest", queries, gallery)
    if not 1 <= k <= len(gallery):
        raise ValueError(
            f"nearest needs k between 1 and the gallery's {len(gallery)} items, got {k}: "
            f"gallery smaller than K."
        )
    dtype = exact_dtype(queries)
    rows, columns = block or (_ROWS, max(_NARROW, _SCORES // (_ROWS * dtype.itemsize)))
    values = queries.new_empty(len(queries), k, dtype=dtype)
    ids = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    with torch.autocast(queries.device.type, enabled=False), torch.no_grad():
        for start in range(0, len(queries), rows):
            part = queries[start : start + rows].to(dtype)
            found = _nearest_of_rows(part, gallery, k, metric, columns)
            values[start : start + rows], ids[start : start + rows] = found
    return values, ids


def settle(values: Tensor, ids: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
    """Order neighbors (Q, k) by distance, and by id where distances are equal."""
    ids, order = ids.sort(dim=1, stable=True)
    values, by_value = values.gather(1, order).sort(dim=1, stable=True, descending=largest)
    return values, ids.gather(1, by_value)


def untie(
    values: Tensor,
    ids: Tensor,
    k: int,
    largest: bool,
    search_all: Callable[[Tensor], tuple[Tensor, Tensor]] | None,
) -> tuple[Tensor, Tensor]:
    """The first k of neighbors sorted by distance, with ties in the order of ids.

    A search for the largest values takes any of equal ones. So it is asked for one neighbor more:
    where that is at the distance of the k-th, ties were cut, and the row is searched again.

    Args:
        values: (Q, k + 1) distances, sorted; k columns if the gallery has no more.
        ids: of the same shape.
        k: how many are wanted.
        largest: whether large values come first.
        search_all: rows (Q',) to their neighbors with ties in order, at least k; None leaves
            ties that were cut.

    Returns:
        Distances and ids, (Q, k) each.
    """
    equal = values[:, 1:] == values[:, :-1]
    inside = equal[:, : k - 1].any(1).nonzero()[:, 0]
    cut = equal[:, k - 1 :].any(1).nonzero()[:, 0]
    values, ids = values[:, :k].contiguous(), ids[:, :k].contiguous()
    values[inside], ids[inside] = settle(values[inside], ids[inside], largest)
    if search_all is None or not len(cut):
        return values, ids
    for rows in cut.split(_TIED_ROWS):
        all_values, all_ids = search_all(rows)
        values[rows], ids[rows] = all_values[:, :k], all_ids[:, :k]
    return values, ids


def check_embeddings(who: str, name: str, t: Tensor, least: int = 1) -> None:
    """Embeddings are a matrix with at least ``least`` rows, all of its values finite."""
    if t.dim() != 2 or len(t) < least or not t.shape[1]:
        raise ValueError(
            f"{who} needs {name} (B, D) with B >= {least} and D >= 1, got {tuple(t.shape)}."
        )
    if not torch.isfinite(torch.stack(torch.aminmax(t))).all():  # aminmax passes NaN on
        raise ValueError(f"{who} needs finite {name}, but there are NaN or infinite values.")


def check_pair(who: str, queries: Tensor, gallery: Tensor) -> None:
    """Two sets of finite embeddings of one width."""
    check_embeddings(who, "queries", queries)
    check_embeddings(who, "gallery", gallery)
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{who} needs queries and gallery of one width, got {queries.shape[1]} and "
            f"{gallery.shape[1]}."
        )


def _nearest_of_rows(
    queries: Tensor, gallery: Tensor, k: int, metric: str, columns: int
) -> tuple[Tensor, Tensor]:
    """A running top k over blocks of the gallery, whose ids ascend."""
    largest = metric == "ip"
    parts: Sequence[Tensor] = gallery.split(columns)
    values = queries.new_empty(len(queries), 0)
    ids = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for number, part in enumerate(parts):
        scores = _scores(queries, part.to(queries.dtype), metric)
        new, index = _top(scores, min(k, len(part)), largest)
        values, ids = torch.cat([values, new], 1), torch.cat([ids, index + number * columns], 1)
        if number:  # both halves are settled and the first has the smaller ids: stable is enough
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
    """Top k of every row, settled."""

    def search_all(rows: Tensor) -> tuple[Tensor, Tensor]:
        return scores[rows].sort(dim=1, stable=True, descending=largest)

    values, ids = scores.topk(min(k + 1, scores.shape[1]), dim=1, largest=largest)
    return untie(values, ids, k, largest, search_all)
