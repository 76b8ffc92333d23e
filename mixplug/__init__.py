"""mixplug: mixing in feature space as one config key, in timm and OpenMMLab pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixplug import functional, sampling
from mixplug.catalog import build, entries, register
from mixplug.layouts import Layout
from mixplug.mixed import HullMixed, Mixed
from mixplug.mixers.base import Mixer, Plan
from mixplug.stages import Stages

if TYPE_CHECKING:
    from mixplug.catalog import Target

__version__ = "0.1.0"

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


def __getattr__(name: str) -> Target:
    """``mixplug.alignmix`` and every other name of the catalog, found when asked for."""
    from mixplug.catalog import find

    if name.startswith("_"):
        raise AttributeError(f"module 'mixplug' has no attribute {name!r}")
    try:
        return find(name).target
    except KeyError as error:
        raise AttributeError(
            f"module 'mixplug' has no attribute {name!r}. {error.args[0]}"
        ) from None
