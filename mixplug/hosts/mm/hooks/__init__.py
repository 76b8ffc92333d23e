"""Hooks for mmengine."""

from mixplug.hosts.mm.hooks.mixup import MixupHook
from mixplug.hosts.mm.hooks.self_distillation import DistillationHook

__all__ = ["DistillationHook", "MixupHook"]
