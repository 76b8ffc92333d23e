"""Single-object tracker with a frozen vision transformer."""

from mixplug.models.tracking.box_decoder import BoxDecoder
from mixplug.models.tracking.frozen_tracker import FrozenTracker

__all__ = ["BoxDecoder", "FrozenTracker"]
