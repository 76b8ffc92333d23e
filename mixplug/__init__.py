"""mixplug: mixing in feature space as one config key, in timm and OpenMMLab pipelines."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mixplug import moved

if TYPE_CHECKING:
    from mixplug import functional, sampling
    from mixplug.catalog import build, entries, register
    from mixplug.layouts import Layout
    from mixplug.mixed import HullMixed, Mixed
    from mixplug.mixers.base import Mixer, Plan
    from mixplug.stages import Stages

__version__ = "0.2.0"

__all__ = [
    "HullMixed",
    "Layout",
    "Mixed",
    "Mixer",
    "Plan",
    "Stages",
    "build",
    "entries",
    "functional",
    "register",
    "sampling",
]

_HOMES = {
    "catalog": ("build", "entries", "register"),
    "layouts": ("Layout",),
    "mixed": ("HullMixed", "Mixed"),
    "mixers.base": ("Mixer", "Plan"),
    "stages": ("Stages",),
}
_MODULES = {name: f"mixplug.{home}" for home, names in _HOMES.items() for name in names}


moved.install()


def __getattr__(name: str) -> Any:
    """Names above, loaded when first used since torch takes seconds; and those of the catalog."""
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    if name in __all__:
        return import_module(f"mixplug.{name}")
    if name.startswith("_"):
        raise AttributeError(f"module 'mixplug' has no attribute {name!r}")
    from mixplug.catalog import find

    try:
        return find(name).target  # mixplug.alignmix
    except KeyError as error:
        raise AttributeError(
            f"module 'mixplug' has no attribute {name!r}. {error.args[0]}"
        ) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
