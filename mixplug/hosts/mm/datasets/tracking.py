"""Data of object tracking for mmengine: pairs of crops for training, whole sequences for tests."""

from __future__ import annotations

from mixplug.data import got10k, tracking_pairs
from mixplug.registry import DATASETS


@DATASETS.register_module()
class TrackingPairs(tracking_pairs.TrackingPairs):
    """Keys: :class:`mixplug.data.tracking_pairs.TrackingPairs`.

    Training goes by the Runner's seed in place of ``seed``, as that of all its data does.
    """


@DATASETS.register_module()
class GOT10k(got10k.GOT10k):
    """Keys: :class:`mixplug.data.got10k.GOT10k`; an item has its sequence as ``sequence``."""

    def __getitem__(self, index: int) -> dict[str, got10k.TrackingSequence]:
        """A sequence to track in."""
        return {"sequence": super().__getitem__(index)}
