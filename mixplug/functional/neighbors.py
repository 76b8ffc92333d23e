"""Retrieval scores and k-NN classification, computed from the labels of nearest neighbors.

Letters: Q queries, B examples, k neighbors per query, K classes, R items relevant to a query (of
the same class). Neighbor labels are (Q, k) int64, nearest first, without the query itself; -1 marks
a missing neighbor. All retrieval scores are fractions and means over queries.
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
    r"""Recall@K as defined in deep metric learning [0].

        R@K = 1/Q sum_q [ exists i <= K: label of neighbor i of q = label of q ]

    Recall@K is the share of queries with *at least one* neighbor of the same class among the K
    nearest. It is not the share of relevant items that are retrieved, as recall means elsewhere. A
    query without relevant items counts as 0.

    Args:
        neighbor_labels: (Q, k) int64, nearest first, query excluded, -1 for a missing neighbor.
        query_labels: (Q,) int64, not negative.
        ks: values of K, each at most k.

    Returns:
        Recall@K, a fraction, for each K, in the order of ``ks``.

    Raises:
        ValueError: shapes do not match, no query, a negative label, K < 1, or K > k.

    - [0]: Product Quantization for Nearest Neighbor Search, 2011; Deep Metric Learning via Lifted
      Structured Feature Embedding, 2016, https://arxiv.org/abs/1511.06452
    """
    hits = _hits("recall_at_k", neighbor_labels, query_labels)
    ks = list(ks)
    if not ks or min(ks) < 1:
        raise ValueError(f"recall_at_k needs at least one K, all of them >= 1, got {ks}.")
    _require_neighbors("recall_at_k", max(ks), hits)
    recalled = torch.stack([hits[:, :k].any(1) for k in ks])  # one transfer for all K
    return dict(zip(ks, recalled.double().mean(1).tolist(), strict=True))


def precision_at_1(neighbor_labels: Tensor, query_labels: Tensor) -> float:
    """Precision@1: share of queries whose nearest neighbor has the same class. Equals Recall@1.

    Arguments and errors: see :func:`recall_at_k`.
    """
    return recall_at_k(neighbor_labels, query_labels, [1])[1]


def r_precision(neighbor_labels: Tensor, query_labels: Tensor, relevant: Tensor) -> float:
    r"""R-Precision [0]: share of the first R neighbors that have the class of the query.

        1/Q sum_q 1/R_q sum_{i <= R_q} [ label of neighbor i = label of q ]

    Queries with R = 0 are excluded from the mean.

    Args:
        neighbor_labels: (Q, k) int64, nearest first, query excluded, -1 for a missing neighbor.
        query_labels: (Q,) int64, not negative.
        relevant: R, (Q,) int64, the number of gallery items of the class of the query, query
            excluded; each at most k.

    Returns:
        A fraction.

    Raises:
        ValueError: shapes do not match, a negative label, no query with R > 0, or R > k.

    - [0]: A Metric Learning Reality Check, 2020, https://arxiv.org/abs/2003.08505
    """
    hits, relevant = _first_r("r_precision", neighbor_labels, query_labels, relevant)
    return float((hits.sum(1) / relevant.double()).mean())


def map_at_r(neighbor_labels: Tensor, query_labels: Tensor, relevant: Tensor) -> float:
    r"""Mean average precision at R (MAP@R) [0].

        1/Q sum_q 1/R_q sum_{i <= R_q} P_q(i) [ label of neighbor i = label of q ]

    P_q(i) is the share of the first i neighbors that have the class of the query. Queries with
    R = 0 are excluded from the mean. Arguments, result, errors and [0]: see :func:`r_precision`.
    """
    hits, relevant = _first_r("map_at_r", neighbor_labels, query_labels, relevant)
    rank = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    precision = hits.cumsum(1) / rank
    return float(((precision * hits).sum(1) / relevant).mean())


def nmi(labels: Tensor, clusters: Tensor) -> float:
    """Normalized mutual information (NMI) of classes and clusters: 2 I(Y; C) / (H(Y) + H(C)).

    Args:
        labels: classes Y, (B,).
        clusters: cluster indices C, (B,), usually of k-means with one cluster per class.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: shapes do not match, or no examples.
        ImportError: scikit-learn is not installed.
    """
    if labels.dim() != 1 or labels.shape != clusters.shape or not len(labels):
        raise ValueError(
            f"nmi needs labels (B,) and clusters (B,) with B >= 1, got {tuple(labels.shape)} and "
            f"{tuple(clusters.shape)}."
        )
    cluster = optional("sklearn.metrics.cluster", "metric", "NMI")
    return float(cluster.normalized_mutual_info_score(labels.cpu().numpy(), clusters.cpu().numpy()))


def _hits(caller: str, neighbor_labels: Tensor, query_labels: Tensor) -> Tensor:
    """Whether each neighbor has the class of the query, (Q, k) bool."""
    if (
        neighbor_labels.dim() != 2
        or query_labels.shape != neighbor_labels.shape[:1]
        or not len(query_labels)
    ):
        raise ValueError(
            f"{caller} needs neighbor_labels (Q, k) and query_labels (Q,) with Q >= 1, got "
            f"{tuple(neighbor_labels.shape)} and {tuple(query_labels.shape)}."
        )
    if (query_labels < 0).any():
        raise ValueError(
            f"{caller} needs query labels >= 0, got {int(query_labels.min())}. Negative labels are "
            f"reserved for missing neighbors."
        )
    return neighbor_labels == query_labels[:, None]


def _first_r(
    caller: str, neighbor_labels: Tensor, query_labels: Tensor, relevant: Tensor
) -> tuple[Tensor, Tensor]:
    """Hits among the first R neighbors, (Q', max R) bool, and R, for the Q' queries with R > 0."""
    if relevant.shape != query_labels.shape:
        raise ValueError(
            f"{caller} needs relevant and query_labels of the same shape, got "
            f"{tuple(relevant.shape)} and {tuple(query_labels.shape)}."
        )
    hits = _hits(caller, neighbor_labels, query_labels)
    has_relevant = relevant > 0
    if not has_relevant.any():
        raise ValueError(
            f"{caller} needs at least one query with a relevant item in the gallery, got none."
        )
    hits, relevant = hits[has_relevant], relevant[has_relevant]
    largest = int(relevant.max())
    _require_neighbors(caller, largest, hits)
    rank = torch.arange(largest, device=hits.device)
    return hits[:, :largest] & (rank < relevant[:, None]), relevant


def _require_neighbors(caller: str, k: int, hits: Tensor) -> None:
    if k > hits.shape[1]:
        raise ValueError(f"{caller} needs {k} neighbors per query, got only {hits.shape[1]}.")


def knn_votes(
    similarities: Tensor, neighbor_labels: Tensor, classes: int, temperature: float | None = 0.07
) -> Tensor:
    r"""Votes of the k nearest neighbors for each class c, as in k-NN classification [0].

    .. math::
        \sum_i [y_i = c]\, e^{s_i / \tau}

    The votes of a query are divided by its largest weight :math:`e^{s_i/\tau}`. This prevents
    overflow and does not change their order.

    Args:
        similarities: similarities s of the neighbors, usually cosine, (Q, k).
        neighbor_labels: classes y of the neighbors, (Q, k) int64 in [0, K).
        classes: K.
        temperature: τ > 0; None gives each neighbor one vote.

    Returns:
        (Q, K), float32 (float64 for float64 similarities).

    Raises:
        ValueError: shapes do not match, a label is outside [0, K), or the temperature is <= 0.

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
            f"knn_votes needs labels in [0, {classes}), got {int(neighbor_labels.min())} to "
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
    """Accuracy of the k-NN classifier: share of queries whose class has the most votes.

    Ties go to the smallest class index.

    Args:
        votes: (Q, K), see :func:`knn_votes`.
        labels: classes of the queries, (Q,) int64.

    Returns:
        A fraction.

    Raises:
        ValueError: shapes do not match, or no query.
    """
    if votes.dim() != 2 or labels.shape != votes.shape[:1] or not len(labels):
        raise ValueError(
            f"knn_accuracy needs votes (Q, K) and labels (Q,) with Q >= 1, got "
            f"{tuple(votes.shape)} and {tuple(labels.shape)}."
        )
    first = (votes == votes.amax(1, keepdim=True)).to(torch.int8).argmax(1)
    return float((first == labels).double().mean())
