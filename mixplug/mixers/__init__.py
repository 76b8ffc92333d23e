"""Mixers: one file, one method. The catalog finds them here."""

from mixplug.mixers.base import Mixer, Plan
from mixplug.mixers.frozen import FromFile
from mixplug.mixers.pairwise import PairMixer

__all__ = ["FromFile", "Mixer", "PairMixer", "Plan"]
