"""Models that mixplug 0.1 pickled whole: the names that they contain, and their ``Stages``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mixplug.stages.taps import InputTap, OutputTap
from mixplug.stages.watch import Watch

if TYPE_CHECKING:
    from mixplug.stages.stages import Stages

# What 0.1 called them, in mixplug.stages. Its hooks stay on the model and do nothing.
OLD_NAMES: Mapping[str, type] = {
    "_InputTap": InputTap,
    "_OutputTap": OutputTap,
    "_NanWatch": Watch,
}
_KEPT = ("model", "features", "_head", "last", "layout", "call", "tail")


def is_old(state: Mapping[str, Any]) -> bool:
    """Whether attributes of a pickled ``Stages`` are those of mixplug 0.1."""
    return "_head" in state and "_is_last" in state


def renew(stages: Stages, state: Mapping[str, Any]) -> None:
    """Build a ``Stages`` again from the attributes that it had in mixplug 0.1.

    The model must be complete. While it is being unpickled it is not, because it contains its
    ``Stages``.
    """
    type(stages).__init__(stages, *(state[name] for name in _KEPT))
    stages.learned = state["learned"]
