"""Accumulators over the pure scores of :mod:`mixplug.functional`."""

from mixplug.metrics.retrieval import RetrievalMetrics

__all__ = ["RetrievalMetrics"]
