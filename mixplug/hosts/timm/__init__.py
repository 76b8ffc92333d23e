"""timm: stages of its models, its training task with a mixer, its networks on a card."""

from mixplug.scanning import lazy_names

_HOMES = {"MixupTask": "task", "bind": "task", "map_layout": "stages", "timm_stages": "stages"}
__all__ = [*_HOMES]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
