"""Mixers: one file for each method. The catalog finds them here, and so does ``mixplug.mixers.X``.

Derive a mixer of your own from :class:`PairMixer` if it mixes pairs of examples, or else from
:class:`Mixer`.
"""

from mixplug.catalog import registered_in
from mixplug.mixers.base import Mixer, Plan
from mixplug.mixers.building import build_mixer
from mixplug.mixers.frozen import FromFile
from mixplug.mixers.metric import MetricMixing
from mixplug.mixers.pairwise import PairMixer

_registered = registered_in(__name__)
globals().update(_registered)

__all__ = ["FromFile", "MetricMixing", "Mixer", "PairMixer", "Plan", "build_mixer", *_registered]
