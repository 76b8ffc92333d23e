"""Search over a gallery whose parts lie on the ranks of torch.distributed.

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
from mixplug.retrieval.exclusion import check_exclude, check_k, without
from mixplug.retrieval.memory import BLOCK
from mixplug.retrieval.search import METRICS, Index


class _Share(NamedTuple):
    """What the ranks tell each other before they search."""

    problem: str | None  # what this rank refuses
    queries: int
    items: int
    widths: set[int]
    offset: int | None  # of the ids, as asked for
    extra: int  # neighbors more, since some are left out


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
    """:func:`search` over a gallery whose parts lie on the ranks of torch.distributed.

    Every rank searches its shard for all queries, 4096 at a time, and the best k of all shards are
    merged: with index 'flat' the result is that of one process with the whole gallery, ties
    included; the others build an index per shard, whose approximation is another.

    Args:
        queries: (Q, D), the same on all ranks; or, with ``queries_sharded``, each rank's own.
        gallery_shard: (n, D); n may differ between ranks and be 0.
        k: neighbors per query.
        offset: id of the shard's first item; None numbers the shards in the order of ranks.
        exclude: (Q,) ids over the whole gallery, -1 for none.
        queries_sharded: whether queries and results are each rank's own.
        backend: this and the others as in :func:`search`.
        index: 'flat', 'hnsw' or 'ivf'.
        metric: 'ip', 'l2' or 'cosine'.
        block: of torch's search.

    Raises:
        ValueError: what a rank refuses is raised on all of them, so that none waits for ever.
    """
    shard = Index(index, metric, backend)
    queries, mine = _prepared(shard, queries, gallery_shard, exclude, offset)
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, mine)
    offsets, extra = _agree(shares, k, queries_sharded)
    merge = functools.partial(
        _merged, shard, mine.items, offsets[dist.get_rank()], k + extra, block
    )
    found = []
    for kept, start, part in _parts(queries, [s.queries for s in shares], queries_sharded):
        values, ids = merge(part)
        if kept:
            own = ids.new_full((len(ids),), -1)
            own = own if exclude is None else exclude[start : start + len(ids)]
            found.append(without(values, ids, own if extra else None))
    if not found:
        return queries.new_empty(0, k), torch.empty(0, k, dtype=torch.long, device=queries.device)
    return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])


def _prepared(
    shard: Index, queries: Tensor, items: Tensor, exclude: Tensor | None, offset: int | None
) -> tuple[Tensor, _Share]:
    """Build the shard's index; the queries as they are compared, and what others must know."""
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
    """Offsets of all shards, and how many neighbors more are needed; the same on all ranks."""
    for rank, share in enumerate(shares):
        if share.problem is not None:
            raise ValueError(f"sharded_search on rank {rank}: {share.problem}")
    widths = set().union(*(share.widths for share in shares))
    if len(widths) > 1:
        raise ValueError(f"sharded_search needs one width on all ranks, got {sorted(widths)}.")
    queries, sizes = [share.queries for share in shares], [share.items for share in shares]
    if not queries_sharded and len(set(queries)) > 1:
        raise ValueError(
            f"sharded_search needs the same queries on all ranks, got {queries} of them; "
            f"queries of each rank's own need queries_sharded=True."
        )
    running = [sum(sizes[:rank]) for rank in range(len(sizes))]
    offsets = [
        r if share.offset is None else share.offset
        for r, share in zip(running, shares, strict=True)
    ]
    spans = sorted((o, o + n) for o, n in zip(offsets, sizes, strict=True) if n)
    if any(a[1] > b[0] for a, b in itertools.pairwise(spans)):
        raise ValueError(f"sharded_search needs ids that do not overlap, got the spans {spans}.")
    extra = max(share.extra for share in shares)
    check_k(k, sum(sizes), extra)
    return offsets, extra


def _parts(
    queries: Tensor, counts: Sequence[int], queries_sharded: bool
) -> Iterator[tuple[bool, int, Tensor]]:
    """The same queries on all ranks, 4096 at a time: whether they are this rank's, and from where.

    With ``queries_sharded`` every rank sends its own to all others in turn.
    """
    here = dist.get_rank()
    for source in range(len(counts)) if queries_sharded else [here]:
        for start in range(0, counts[source], BLOCK):
            part = queries[start : start + BLOCK]
            if queries_sharded:
                rows = min(BLOCK, counts[source] - start)
                own = source == here
                part = part.contiguous() if own else queries.new_empty(rows, queries.shape[1])
                dist.broadcast(part, source)
            yield source == here, start, part


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
    here = min(k, items)
    if here:
        values[:, :here], found = shard.store.find(queries, here, block)
        ids[:, :here] = torch.where(found < 0, found, found + offset)
    world = dist.get_world_size()
    all_values = [torch.empty_like(values) for _ in range(world)]
    all_ids = [torch.empty_like(ids) for _ in range(world)]
    dist.all_gather(all_values, values)
    dist.all_gather(all_ids, ids)
    values, ids = sort_by_distance(torch.cat(all_values, 1), torch.cat(all_ids, 1), largest)
    return values[:, :k], ids[:, :k]
