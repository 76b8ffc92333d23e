"""Retrieval scores by name: scores of neighbors, and scores of the embeddings alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.functional import neighbors as scores
from mixplug.functional.representation import alignment, uniformity
from mixplug.retrieval.clusters import kmeans_clusters


@dataclass(frozen=True)
class Found:
    """Neighbors of Q queries.

    Attributes:
        neighbors: labels of the k nearest neighbors, (Q, k).
        labels: labels of the queries, (Q,).
        relevant: R, the number of relevant items of each query, (Q,).
    """

    neighbors: Tensor
    labels: Tensor
    relevant: Tensor


def _recall(found: Found, ks: Sequence[int]) -> dict[str, float]:
    values = scores.recall_at_k(found.neighbors, found.labels, ks)
    return {f"recall@{k}": value for k, value in values.items()}


def _precision_at_1(found: Found, ks: Sequence[int]) -> dict[str, float]:
    return {"precision@1": scores.precision_at_1(found.neighbors, found.labels)}


def _r_precision(found: Found, ks: Sequence[int]) -> dict[str, float]:
    value = scores.r_precision(found.neighbors, found.labels, found.relevant)
    return {"r_precision": value}


def _map_at_r(found: Found, ks: Sequence[int]) -> dict[str, float]:
    return {"map@r": scores.map_at_r(found.neighbors, found.labels, found.relevant)}


def _nmi(embeddings: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    return {"nmi": scores.nmi(labels, kmeans_clusters(embeddings, len(labels.unique()), seed))}


def _alignment(embeddings: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    return {"alignment": float(alignment(embeddings, labels))}


def _uniformity(embeddings: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    return {"uniformity": float(uniformity(embeddings))}


# Scores of neighbors: the function; the number of neighbors that it needs, given the largest K and
# the largest R; and the weight of each query in the mean, given R.
OF_NEIGHBORS: dict[
    str,
    tuple[
        Callable[[Found, Sequence[int]], dict[str, float]],
        Callable[[int, int], int],
        Callable[[Tensor], Tensor],
    ],
] = {
    "recall": (_recall, lambda k, r: k, torch.ones_like),
    "precision_at_1": (_precision_at_1, lambda k, r: 1, torch.ones_like),
    "r_precision": (_r_precision, lambda k, r: r, torch.sign),
    "map_at_r": (_map_at_r, lambda k, r: r, torch.sign),
}
OF_EMBEDDINGS = {"nmi": _nmi, "alignment": _alignment, "uniformity": _uniformity}
RESULTS = {"map_at_r": "map@r", "precision_at_1": "precision@1"}  # where a result is named else
NAMES = (*OF_NEIGHBORS, *OF_EMBEDDINGS)
# Scores whose names begin with these are not shares and not in percent. Lower is better.
NOT_SHARES = ("alignment", "uniformity", "utilization")
