"""Search over a gallery that is split over the ranks of torch.distributed.

Letters: Q queries, n items of a shard, D width, k neighbors.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from mixplug.functional.exact_search import check_embeddings, sort_by_distance
from mixplug.retrieval.exclusion import check_exclude, check_k, remove_excluded
from mixplug.retrieval.memory import BLOCK
from mixplug.retrieval.search import METRICS, Index


class _Share(NamedTuple):
    """What each rank sends to all others before the search."""

    problem: str | None  # message of an error on this rank
    queries: int
    items: int
    widths: set[int]
    offset: int | None  # requested id of the first item
    extra: int  # number of additional neighbors, 1 if items are excluded


def sharded_search(
    queries: Tensor,
    gallery_shard: Tensor,
    k: int,
    *,
    offset: int | None = None,
    exclude: Tensor | None = None,
    queries_sharded: bool = False,
    backend: str = "auto",
    index: str = "flat",
    metric: str = "ip",
    block: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`search` over a gallery that is split over the ranks of torch.distributed.

    Every rank searches its shard for all queries, 4096 at a time, and the k nearest of all shards
    are merged. With index 'flat', the result equals that of one process with the whole gallery,
    including the order of ties. Other indexes are built per shard, so their approximation differs.

    Args:
        queries: (Q, D), the same on all ranks; with ``queries_sharded``, different on each rank.
        gallery_shard: items of this rank, (n, D); n may differ between ranks and be 0.
        k: number of neighbors per query.
        offset: id of the first item of the shard. None numbers the items in the order of ranks.
        exclude: ids to exclude, over the whole gallery, (Q,), -1 for none.
        queries_sharded: whether each rank has its own queries and gets only their results.
        backend: 'auto', 'faiss' or 'torch', see :func:`search`.
        index: 'flat', 'hnsw' or 'ivf'.
        metric: 'ip', 'l2' or 'cosine'.
        block: block sizes of PyTorch's search.

    Returns:
        Distances and ids, (Q, k) each, see :func:`search`.

    Raises:
        ValueError: see :func:`search`; also different widths, overlapping ids, or different numbers
            of queries on the ranks. An error on one rank is raised on all ranks, so that no rank
            waits for ever.
    """
    shard = Index(index, metric, backend)
    queries, share = _prepared(shard, queries, gallery_shard, exclude, offset)
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, share)
    offsets, extra = _agree(shares, k, queries_sharded)
    merge = functools.partial(
        _merged, shard, share.items, offsets[dist.get_rank()], k + extra, block
    )
    results = []
    for is_own, start, part in _parts(queries, [s.queries for s in shares], queries_sharded):
        values, ids = merge(part)
        if is_own:
            excluded = ids.new_full((len(ids),), -1)
            excluded = excluded if exclude is None else exclude[start : start + len(ids)]
            results.append(remove_excluded(values, ids, excluded if extra else None))
    if not results:
        return queries.new_empty(0, k), torch.empty(0, k, dtype=torch.long, device=queries.device)
    return torch.cat([r[0] for r in results]), torch.cat([r[1] for r in results])


def _prepared(
    shard: Index, queries: Tensor, items: Tensor, exclude: Tensor | None, offset: int | None
) -> tuple[Tensor, _Share]:
    """Build the index of the shard. Return the preprocessed queries, and what to send to others."""
    problem, extra = None, 0
    try:
        if len(items):
            shard.build(items)
        if len(queries):
            check_embeddings("search", "queries", queries)
        queries = METRICS[shard.metric][0](queries.detach().float())
        extra = check_exclude(exclude, len(queries), None)
    except (ValueError, ImportError) as error:
        problem = str(error)
    widths = {queries.shape[-1], items.shape[-1]}
    return queries, _Share(problem, len(queries), len(items), widths, offset, extra)


def _agree(shares: Sequence[_Share], k: int, queries_sharded: bool) -> tuple[list[int], int]:
    """Offsets of all shards, and the number of additional neighbors; the same on all ranks."""
    for rank, share in enumerate(shares):
        if share.problem is not None:
            raise ValueError(f"sharded_search failed on rank {rank}: {share.problem}")
    widths = set().union(*(share.widths for share in shares))
    if len(widths) > 1:
        raise ValueError(f"sharded_search needs the same width on all ranks, got {sorted(widths)}.")
    queries, sizes = [share.queries for share in shares], [share.items for share in shares]
    if not queries_sharded and len(set(queries)) > 1:
        raise ValueError(
            f"sharded_search needs the same queries on all ranks, got {queries} queries per rank. "
            f"Set queries_sharded=True if each rank has its own queries."
        )
    running = [sum(sizes[:rank]) for rank in range(len(sizes))]
    offsets = [
        r if share.offset is None else share.offset
        for r, share in zip(running, shares, strict=True)
    ]
    spans = sorted((o, o + n) for o, n in zip(offsets, sizes, strict=True) if n)
    if any(a[1] > b[0] for a, b in itertools.pairwise(spans)):
        raise ValueError(
            f"sharded_search needs shards whose ids do not overlap, got the ranges {spans}."
        )
    extra = max(share.extra for share in shares)
    check_k(k, sum(sizes), extra)
    return offsets, extra


def _parts(
    queries: Tensor, counts: Sequence[int], queries_sharded: bool
) -> Iterator[tuple[bool, int, Tensor]]:
    """Yield blocks of 4096 queries that are the same on all ranks.

    With ``queries_sharded``, the ranks broadcast their own queries one after the other.

    Yields:
        Whether the block belongs to this rank, the index of its first query, and its queries.
    """
    rank = dist.get_rank()
    for source in range(len(counts)) if queries_sharded else [rank]:
        for start in range(0, counts[source], BLOCK):
            part = queries[start : start + BLOCK]
            if queries_sharded:
                rows = min(BLOCK, counts[source] - start)
                is_own = source == rank
                part = part.contiguous() if is_own else queries.new_empty(rows, queries.shape[1])
                dist.broadcast(part, source)
            yield source == rank, start, part


def _merged(
    shard: Index,
    items: int,
    offset: int,
    k: int,
    block: tuple[int, int] | None,
    queries: Tensor,
) -> tuple[Tensor, Tensor]:
    """The k nearest of all shards, on all ranks."""
    largest = METRICS[shard.metric][1] == "ip"
    values = queries.new_full((len(queries), k), -torch.inf if largest else torch.inf)
    ids = torch.full((len(queries), k), -1, device=queries.device)
    count = min(k, items)
    if count:
        values[:, :count], local_ids = shard.store.find(queries, count, block)
        ids[:, :count] = torch.where(local_ids < 0, local_ids, local_ids + offset)
    world = dist.get_world_size()
    all_values = [torch.empty_like(values) for _ in range(world)]
    all_ids = [torch.empty_like(ids) for _ in range(world)]
    dist.all_gather(all_values, values)
    dist.all_gather(all_ids, ids)
    values, ids = sort_by_distance(torch.cat(all_values, 1), torch.cat(all_ids, 1), largest)
    return values[:, :k], ids[:, :k]
