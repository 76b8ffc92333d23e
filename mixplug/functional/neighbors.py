"""Nearest neighbours, exactly and in blocks, and retrieval scores as functions of their labels.

Letters: Q queries, N gallery items, D width, k neighbours, R items that are relevant to a query.
Neighbour labels are (Q, k) int64, nearest first, without the query itself; -1 where there is none.
All scores are fractions, means over queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.optional import optional

METRICS = ("ip", "l2")
_SCORES = 1 << 28  # bytes of similarities in flight
_ROWS = 1024  # queries at a time: a product of this height runs at full speed
_NARROW = 16  # below, BLAS takes kernels that round differently
_TIED_ROWS = 64  # searched again at a time, since that may sort all of the gallery


def recall_at_k(
    neighbor_labels: Tensor, query_labels: Tensor, ks: Iterable[int]
) -> dict[int, float]:
    r"""Recall@K as deep metric learning defines it [0]: is *any* of the K nearest of the class?

        R@K = 1/Q sum_q [ exists i <= K: label of neighbour i of q = label of q ]

    It is not the share of relevant items that are found, which is what others call recall. A query
    without any relevant item counts, as 0.

    Args:
        neighbor_labels: (Q, k) int64, nearest first, query excluded, -1 where there is none.
        query_labels: (Q,) int64, not negative.
        ks: the values of K.

    Returns:
        A fraction per K, in the order given.

    Raises:
        ValueError: shapes do not fit, no query, K < 1, or K > k: the gallery smaller than K.

    - [0]: Product Quantization for Nearest Neighbor Search, 2011; Deep Metric Learning via Lifted
      Structured Feature Embedding, 2016, https://arxiv.org/abs/1511.06452
    """
    hits = _hits("recall_at_k", neighbor_labels, query_labels)
    ks = list(ks)
    if not ks or min(ks) < 1:
        raise ValueError(f"recall_at_k needs at least one K, all of them >= 1, got {ks}.")
    _enough("recall_at_k", max(ks), hits)
    found = torch.stack([hits[:, :k].any(1) for k in ks])  # one transfer for all K
    return dict(zip(ks, found.double().mean(1).tolist(), strict=True))


def precision_at_1(neighbor_labels: Tensor, query_labels: Tensor) -> float:
    """Share of queries whose nearest neighbour is of their class; equal to Recall@1.

    Arguments and errors are those of :func:`recall_at_k`.
    """
    return recall_at_k(neighbor_labels, query_labels, [1])[1]


def r_precision(neighbor_labels: Tensor, query_labels: Tensor, relevant: Tensor) -> float:
    r"""R-Precision [0]: the share of a query's first R neighbours that are of its class.

        1/Q sum_q 1/R_q sum_{i <= R_q} [ label of neighbour i = label of q ]

    Queries with R = 0 have no value and are left out of the mean.

    Args:
        neighbor_labels: (Q, k) int64, nearest first, query excluded, -1 where there is none.
        query_labels: (Q,) int64, not negative.
        relevant: R, (Q,) int64, gallery items of the query's class, query excluded.

    Raises:
        ValueError: shapes do not fit, no query with R > 0, or R > k: the gallery smaller than K.

    - [0]: A Metric Learning Reality Check, 2020, https://arxiv.org/abs/2003.08505
    """
    hits, relevant = _first_r("r_precision", neighbor_labels, query_labels, relevant)
    return float((hits.sum(1) / relevant.double()).mean())


def map_at_r(neighbor_labels: Tensor, query_labels: Tensor, relevant: Tensor) -> float:
    r"""MAP@R [0]: precision at each hit among the first R neighbours, over R.

        1/Q sum_q 1/R_q sum_{i <= R_q} P_q(i) [ label of neighbour i = label of q ]

    where P_q(i) is the share of hits in the first i. Queries with R = 0 are left out of the mean.
    Arguments, errors and [0] are those of :func:`r_precision`.
    """
    hits, relevant = _first_r("map_at_r", neighbor_labels, query_labels, relevant)
    rank = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    precision = hits.cumsum(1) / rank
    return float(((precision * hits).sum(1) / relevant).mean())


def nmi(labels: Tensor, clusters: Tensor) -> float:
    """Normalised mutual information of classes and clusters: 2 I(Y; C) / (H(Y) + H(C)), in [0, 1].

    Args:
        labels: (B,) classes.
        clusters: (B,) clusters, such as those of k-means with as many clusters as classes.

    Raises:
        ValueError: shapes do not fit, or no example.
        ImportError: scikit-learn is not installed.
    """
    if labels.dim() != 1 or labels.shape != clusters.shape or not len(labels):
        raise ValueError(
            f"nmi needs labels (B,) and clusters (B,) with B >= 1, got {tuple(labels.shape)} and "
            f"{tuple(clusters.shape)}."
        )
    cluster = optional("sklearn.metrics.cluster", "metric", "NMI")
    return float(cluster.normalized_mutual_info_score(labels.cpu().numpy(), clusters.cpu().numpy()))


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
        k: neighbours per query, at most N.
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
    """Order neighbours (Q, k) by distance, and by id where distances are equal."""
    ids, order = ids.sort(dim=1, stable=True)
    values, by_value = values.gather(1, order).sort(dim=1, stable=True, descending=largest)
    return values, ids.gather(1, by_value)


def untie(
    values: Tensor,
    ids: Tensor,
    k: int,
    largest: bool,
    again: Callable[[Tensor], tuple[Tensor, Tensor]] | None,
) -> tuple[Tensor, Tensor]:
    """The first k of neighbours sorted by distance, with ties in the order of ids.

    A search for the largest values takes any of equal ones. So it is asked for one neighbour more:
    where that is at the distance of the k-th, ties were cut, and the row is searched again.

    Args:
        values: (Q, k + 1) distances, sorted; k columns if the gallery has no more.
        ids: of the same shape.
        k: how many are wanted.
        largest: whether large values come first.
        again: rows (Q',) to their neighbours with ties in order, at least k of them; None leaves
            ties that were cut.

    Returns:
        Distances and ids, (Q, k) each.
    """
    equal = values[:, 1:] == values[:, :-1]
    inside = equal[:, : k - 1].any(1).nonzero()[:, 0]
    cut = equal[:, k - 1 :].any(1).nonzero()[:, 0]
    values, ids = values[:, :k].contiguous(), ids[:, :k].contiguous()
    values[inside], ids[inside] = settle(values[inside], ids[inside], largest)
    if again is None or not len(cut):
        return values, ids
    for rows in cut.split(_TIED_ROWS):
        all_values, all_ids = again(rows)
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

    def again(rows: Tensor) -> tuple[Tensor, Tensor]:
        return scores[rows].sort(dim=1, stable=True, descending=largest)

    values, ids = scores.topk(min(k + 1, scores.shape[1]), dim=1, largest=largest)
    return untie(values, ids, k, largest, again)


def _hits(who: str, neighbor_labels: Tensor, query_labels: Tensor) -> Tensor:
    """(Q, k) bool: is this neighbour of the query's class?"""
    if (
        neighbor_labels.dim() != 2
        or query_labels.shape != neighbor_labels.shape[:1]
        or not len(query_labels)
    ):
        raise ValueError(
            f"{who} needs neighbor_labels (Q, k) and query_labels (Q,) with Q >= 1, got "
            f"{tuple(neighbor_labels.shape)} and {tuple(query_labels.shape)}."
        )
    if (query_labels < 0).any():
        raise ValueError(
            f"{who} needs query labels >= 0, got {int(query_labels.min())}: -1 marks a missing "
            f"neighbour."
        )
    return neighbor_labels == query_labels[:, None]


def _first_r(
    who: str, neighbor_labels: Tensor, query_labels: Tensor, relevant: Tensor
) -> tuple[Tensor, Tensor]:
    """Hits among the first R, (Q', max R) bool, and R of the Q' queries where it is not 0."""
    if relevant.shape != query_labels.shape:
        raise ValueError(
            f"{who} needs relevant and query_labels of one shape, got {tuple(relevant.shape)} and "
            f"{tuple(query_labels.shape)}."
        )
    hits = _hits(who, neighbor_labels, query_labels)
    some = relevant > 0
    if not some.any():
        raise ValueError(f"{who} has no query left: none has a relevant item in the gallery.")
    hits, relevant = hits[some], relevant[some]
    most = int(relevant.max())
    _enough(who, most, hits)
    rank = torch.arange(most, device=hits.device)
    return hits[:, :most] & (rank < relevant[:, None]), relevant


def _enough(who: str, k: int, hits: Tensor) -> None:
    if k > hits.shape[1]:
        raise ValueError(
            f"{who} needs {k} neighbours per query, got {hits.shape[1]}: gallery smaller than K."
        )
