"""Self-distillation of vision transformers: DINO and DoRA."""

from mixplug.models.self_distillation.dino_head import DINOHead
from mixplug.models.self_distillation.distillation import DINO, SelfDistillation, Taught
from mixplug.models.self_distillation.dora import DoRA
from mixplug.models.self_distillation.schedules import cosine
from mixplug.models.self_distillation.tracker import Tracker, object_tracks
from mixplug.models.self_distillation.views import Views

__all__ = [
    "DINO",
    "DINOHead",
    "DoRA",
    "SelfDistillation",
    "Taught",
    "Tracker",
    "Views",
    "cosine",
    "object_tracks",
]
