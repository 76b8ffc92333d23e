"""Retrieval scores as functions of the labels of neighbors.

Letters: Q queries, B examples, k neighbors, R items that are relevant to a query.
Neighbor labels are (Q, k) int64, nearest first, without the query itself; -1 where there is none.
All scores are fractions, means over queries.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.optional import optional


def recall_at_k(
    neighbor_labels: Tensor, query_labels: Tensor, ks: Iterable[int]
) -> dict[int, float]:
    r"""Recall@K as deep metric learning defines it [0]: is *any* of the K nearest of the class?

        R@K = 1/Q sum_q [ exists i <= K: label of neighbor i of q = label of q ]

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
    """Share of queries whose nearest neighbor is of their class; equal to Recall@1.

    Arguments and errors are those of :func:`recall_at_k`.
    """
    return recall_at_k(neighbor_labels, query_labels, [1])[1]


def r_precision(neighbor_labels: Tensor, query_labels: Tensor, relevant: Tensor) -> float:
    r"""R-Precision [0]: the share of a query's first R neighbors that are of its class.

        1/Q sum_q 1/R_q sum_{i <= R_q} [ label of neighbor i = label of q ]

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
    r"""MAP@R [0]: precision at each hit among the first R neighbors, over R.

        1/Q sum_q 1/R_q sum_{i <= R_q} P_q(i) [ label of neighbor i = label of q ]

    where P_q(i) is the share of hits in the first i. Queries with R = 0 are left out of the mean.
    Arguments, errors and [0] are those of :func:`r_precision`.
    """
    hits, relevant = _first_r("map_at_r", neighbor_labels, query_labels, relevant)
    rank = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    precision = hits.cumsum(1) / rank
    return float(((precision * hits).sum(1) / relevant).mean())


def nmi(labels: Tensor, clusters: Tensor) -> float:
    """Normalized mutual information of classes and clusters: 2 I(Y; C) / (H(Y) + H(C)), in [0, 1].

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


def _hits(who: str, neighbor_labels: Tensor, query_labels: Tensor) -> Tensor:
    """(Q, k) bool: is this neighbor of the query's class?"""
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
            f"neighbor."
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
            f"{who} needs {k} neighbors per query, got {hits.shape[1]}: gallery smaller than K."
        )


def knn_votes(
    similarities: Tensor, neighbor_labels: Tensor, classes: int, temperature: float | None = 0.07
) -> Tensor:
    r"""Votes of the k nearest neighbors, :math:`\sum_i [y_i = c]\, e^{s_i / \tau}`, as in [0].

    They are divided by the largest of a query's weights, which changes no order and overflows
    nowhere.

    Args:
        similarities: s of the neighbors, cosine as a rule, (Q, k).
        neighbor_labels: y, (Q, k) int64 in [0, K).
        classes: K.
        temperature: τ > 0; None gives each neighbor one vote.

    Returns:
        (Q, K).

    Raises:
        ValueError: shapes do not fit, a class outside [0, K), or a temperature that is not > 0.

    - [0]: Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018,
      https://arxiv.org/abs/1805.01978
    """
    if similarities.dim() != 2 or similarities.shape != neighbor_labels.shape:
        raise ValueError(
            f"knn_votes needs similarities and neighbor_labels (Q, k), got "
            f"{tuple(similarities.shape)} and {tuple(neighbor_labels.shape)}."
        )
    if (
        neighbor_labels.numel()
        and not 0 <= int(neighbor_labels.min()) <= int(neighbor_labels.max()) < classes
    ):
        raise ValueError(
            f"knn_votes needs classes in [0, {classes}), got {int(neighbor_labels.min())} to "
            f"{int(neighbor_labels.max())}."
        )
    if temperature is not None and not temperature > 0:
        raise ValueError(f"knn_votes needs a temperature > 0 or None, got {temperature}.")
    s = similarities.to(exact_dtype(similarities))
    if temperature is None:
        weight = torch.ones_like(s)
    else:
        weight = ((s - s.amax(1, keepdim=True)) / temperature).exp()
    return s.new_zeros(len(s), classes).scatter_add_(1, neighbor_labels, weight)


def knn_accuracy(votes: Tensor, labels: Tensor) -> float:
    """Share of queries whose class has the most votes; of classes that tie, the lowest counts.

    Args:
        votes: (Q, K).
        labels: (Q,) int64.

    Raises:
        ValueError: shapes do not fit, or no query.
    """
    if votes.dim() != 2 or labels.shape != votes.shape[:1] or not len(labels):
        raise ValueError(
            f"knn_accuracy needs votes (Q, K) and labels (Q,) with Q >= 1, got "
            f"{tuple(votes.shape)} and {tuple(labels.shape)}."
        )
    first = (votes == votes.amax(1, keepdim=True)).to(torch.int8).argmax(1)
    return float((first == labels).double().mean())
