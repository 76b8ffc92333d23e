"""k-means clustering."""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.functional.exact_search import check_embeddings
from mixplug.optional import optional
from mixplug.retrieval.faiss_library import array, has_faiss, load_faiss, threads
from mixplug.retrieval.search import in_range


def kmeans_clusters(embeddings: Tensor, k: int, seed: int = 0) -> Tensor:
    """k-means clustering with 20 iterations, by faiss if it is installed, otherwise scikit-learn.

    The two libraries draw different initial centers, so their clusters differ.

    Args:
        embeddings: (B, D).
        k: number of clusters, 1 to B.
        seed: random seed of the initial centers.

    Returns:
        Index of the cluster of each embedding, (B,) int64.

    Raises:
        ValueError: a value is not finite, or k is not in [1, B].
        ImportError: neither faiss nor scikit-learn is installed.
    """
    check_embeddings("kmeans_clusters", "embeddings", embeddings)
    if not 1 <= k <= len(embeddings):
        raise ValueError(
            f"kmeans_clusters needs k between 1 and {len(embeddings)}, the number of embeddings, "
            f"got {k}."
        )
    points = array(in_range(embeddings.detach().float())[0])
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
