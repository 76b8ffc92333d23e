"""Metrics of data sets: they accumulate batches and compute scores at the end.

The scores are pure functions in :mod:`mixplug.functional`.
"""

from mixplug.catalog import registered_in
from mixplug.metrics.augmented import mixed_embeddings
from mixplug.metrics.calibration import CalibrationMetrics
from mixplug.metrics.localization import Localization, Located
from mixplug.metrics.ood import ood_scores
from mixplug.metrics.positivity import Positivity
from mixplug.metrics.retrieval import RetrievalMetrics
from mixplug.metrics.robustness import ATTACKS, Attack
from mixplug.metrics.vos import ObjectScore, Scores, score_video

_registered = registered_in(__name__)
globals().update(_registered)

__all__ = [
    "ATTACKS",
    "Attack",
    "CalibrationMetrics",
    "Localization",
    "Located",
    "ObjectScore",
    "Positivity",
    "RetrievalMetrics",
    "Scores",
    "mixed_embeddings",
    "ood_scores",
    "score_video",
    *_registered,
]
