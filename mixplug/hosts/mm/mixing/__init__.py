"""The key ``mixup`` in models of mmpretrain, mmdet and mmseg."""

from mixplug.scanning import lazy_names

_HOMES = {"mm_stages": "classifier", "train_with": "key"}
__all__ = [*_HOMES]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
