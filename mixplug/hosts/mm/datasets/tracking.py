"""Data of object tracking for mmengine: pairs of crops for training, whole sequences for tests."""

from __future__ import annotations

from mixplug.data import got10k, tracking_pairs
from mixplug.registry import DATASETS


@DATASETS.register_module()
class TrackingPairs(tracking_pairs.TrackingPairs):
    """Pairs of crops of GOT-10k, template and search region, for training a tracker (6.5.3).

    It is :class:`mixplug.data.TrackingPairs`. In training the Runner's seed replaces ``seed``, as
    for all data of a Runner.
    """


@DATASETS.register_module()
class GOT10k(got10k.GOT10k):
    """Whole sequences of GOT-10k, for testing a tracker with mixplug.GOT10kMetric (6.5.3).

    It is :class:`mixplug.data.GOT10k`; an item has its sequence under the key ``sequence``.
    """

    def __getitem__(self, index: int) -> dict[str, got10k.TrackingSequence]:
        """A sequence to track an object in."""
        return {"sequence": super().__getitem__(index)}
