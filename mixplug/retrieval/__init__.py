"""Search for nearest neighbours: by faiss, or exactly by torch in blocks."""

from mixplug.retrieval.search import (
    Index,
    kmeans_clusters,
    memory_estimate,
    search,
    sharded_search,
)

__all__ = ["Index", "kmeans_clusters", "memory_estimate", "search", "sharded_search"]
