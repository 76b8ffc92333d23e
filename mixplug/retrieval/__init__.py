"""Nearest-neighbor search: with faiss, or exactly with PyTorch in blocks."""

from mixplug.retrieval.clusters import kmeans_clusters
from mixplug.retrieval.memory import memory_estimate
from mixplug.retrieval.search import Index, search
from mixplug.retrieval.sharded import sharded_search

__all__ = ["Index", "kmeans_clusters", "memory_estimate", "search", "sharded_search"]
