"""Clusters by k-means."""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.functional.exact_search import check_embeddings
from mixplug.optional import optional
from mixplug.retrieval.faiss_library import array, has_faiss, load_faiss, threads


def kmeans_clusters(embeddings: Tensor, k: int, seed: int = 0) -> Tensor:
    """Clusters (B,) int64 of k-means: 20 iterations of faiss if it is installed, else scikit-learn.

    The two draw their first centers differently, so their clusters differ.

    Args:
        embeddings: (B, D).
        k: clusters, at most B.
        seed: of the first centers.

    Raises:
        ValueError: NaN, or k is not between 1 and B.
        ImportError: neither is installed.
    """
    check_embeddings("kmeans_clusters", "embeddings", embeddings)
    if not 1 <= k <= len(embeddings):
        raise ValueError(
            f"kmeans_clusters needs k between 1 and the {len(embeddings)} embeddings, got {k}."
        )
    points = array(embeddings.detach().float())
    if not has_faiss():
        cluster = optional("sklearn.cluster", "metric", "k-means")
        fitted = cluster.KMeans(k, n_init=1, max_iter=20, random_state=seed).fit(points)
        return torch.from_numpy(fitted.labels_).long().to(embeddings.device)
    faiss = load_faiss()
    with threads(faiss):
        means = faiss.Kmeans(points.shape[1], k, niter=20, seed=seed, min_points_per_centroid=1)
        means.train(points)
        ids = means.index.search(points, 1)[1]
    return torch.from_numpy(ids[:, 0]).to(embeddings.device)
