"""Metrics of data sets: they accumulate batches and apply :mod:`mixplug.functional` to them."""

from mixplug.metrics.retrieval import RetrievalMetrics

__all__ = ["RetrievalMetrics"]
