"""Mixers: one file, one method. The catalog finds them here."""

from mixplug.mixers.base import Mixer, Plan

__all__ = ["Mixer", "Plan"]
