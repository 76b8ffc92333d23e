"""Self-distillation of vision transformers: DINO, DoRA, and the base class of further methods."""

from mixplug.models.self_distillation.dino import DINO
from mixplug.models.self_distillation.dino_head import DINOHead
from mixplug.models.self_distillation.distillation import SelfDistillation
from mixplug.models.self_distillation.dora import DoRA
from mixplug.models.self_distillation.outputs import StepOutput, TeacherOutput
from mixplug.models.self_distillation.schedules import cosine
from mixplug.models.self_distillation.targets import Target
from mixplug.models.self_distillation.tracker import Tracker, object_tracks
from mixplug.models.self_distillation.views import Views
from mixplug.renamed import renamed_names

__all__ = [
    "DINO",
    "DINOHead",
    "DoRA",
    "SelfDistillation",
    "StepOutput",
    "Target",
    "TeacherOutput",
    "Tracker",
    "Views",
    "cosine",
    "object_tracks",
]

__getattr__ = renamed_names(__name__, {"Taught": TeacherOutput})
