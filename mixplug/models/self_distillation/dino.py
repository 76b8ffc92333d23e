"""DINO: the student sees the large views as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.catalog import register
from mixplug.models.self_distillation.distillation import SelfDistillation
from mixplug.models.self_distillation.outputs import TeacherOutput


@register("DINO", kind="selfsup", reference="thesis 6.4, Caron 2021")
class DINO(SelfDistillation):
    """Self-distillation of class tokens between views: the baseline of DoRA.

    The student sees the large views as they are, and predicts the teacher's output for the other
    large view. The losses are ``loss_global`` and ``loss_local``.
    """

    def teach(self, large: Tensor, generator: torch.Generator) -> TeacherOutput:
        """Class tokens of the teacher; the student sees the same images."""
        frames = large.flatten(0, 2)
        return TeacherOutput(self.teacher_encoder.cls(frames), frames[:, None])
