"""Draw figures: retrieval results, tracked objects, aligned feature maps, reliability diagrams.

One module for each kind of figure, ``mixplug.viz.reliability.figure(...)``. matplotlib is imported
when something is drawn.
"""

from mixplug.viz import (
    alignment,
    attention,
    classification,
    embedding,
    lightness,
    localization,
    ood,
    positivity,
    reliability,
    retrieval,
    tracks,
)
from mixplug.viz.retrieval import Retrieved
from mixplug.viz.track_video import draw_clip, draw_tracks
from mixplug.viz.tracks import film, overlay, strip

__all__ = [
    "Retrieved",
    "alignment",
    "attention",
    "classification",
    "draw_clip",
    "draw_tracks",
    "embedding",
    "film",
    "lightness",
    "localization",
    "ood",
    "overlay",
    "positivity",
    "reliability",
    "retrieval",
    "strip",
    "tracks",
]
