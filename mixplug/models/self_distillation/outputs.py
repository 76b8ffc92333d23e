"""Outputs of teacher and student in a step of self-distillation.

Letters: B clips, T frames, S versions of a large view that the student sees, m small views, N
patches of an image, D width, K head outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mixplug.models.self_distillation.views import Views
from mixplug.renamed import renamed_keys


@renamed_keys(tokens="class_tokens")
@dataclass(frozen=True)
class TeacherOutput:
    """Result of the teacher's pass over the large views, and the images for the student.

    Attributes:
        class_tokens: (2 B T, D).
        images: what the student sees in place of the large views, (2 B T, S, 3, H, W).
        monitors: scalars to log.
        mask: patches of ``images`` that the student's mask token replaces, (2 B T, S, N) bool; None
            masks nothing.
        patch_tokens: (2 B T, N, D), for targets of patches; None if the method has none.
    """

    class_tokens: Tensor
    images: Tensor
    monitors: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = field(default=None, kw_only=True)
    patch_tokens: Tensor | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class StepOutput:
    """Everything that losses and monitors of a step are computed from.

    Dictionaries have one item for each target, by its name. Tensors of a target of patches have the
    further dimension N before K.

    Attributes:
        views: the batch.
        teacher: what :meth:`SelfDistillation.teach` returned.
        targets: the teacher's probabilities for the large views, (2, B T, K) or (2, B T, N, K).
        student: the student's logits for its versions of the large views, (2, B T, S, K) or
            (2, B T, S, N, K).
        small: the student's logits for the small views, (m, B T, K); only of targets of class
            tokens, and empty without small views.
    """

    views: Views
    teacher: TeacherOutput
    targets: Mapping[str, Tensor]
    student: Mapping[str, Tensor]
    small: Mapping[str, Tensor]
