"""Adapters to training frameworks: timm, and OpenMMLab (mm). Each is imported when first used."""

from mixplug.scanning import lazy_names

_HOMES = {
    "MixupTask": "timm.task",
    "bind": "timm.task",
    "mm_stages": "mm.mixing.classifier",
    "timm_stages": "timm.stages",
    "train_with": "mm.mixing.key",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
