"""Self-distillation: a student learns to predict its own moving average, the teacher.

Letters: B clips, T frames, S versions of a large view that the student sees, m small views, N
patches of an image, D width, K head outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.catalog import KINDS
from mixplug.distributed import rank
from mixplug.functional.distill import (
    cross_view_loss,
    entropy,
    local_loss,
    teacher_probabilities,
)
from mixplug.models.self_distillation import checks
from mixplug.models.self_distillation.outputs import StepOutput, TeacherOutput
from mixplug.models.self_distillation.student_teacher import StudentTeacher
from mixplug.models.self_distillation.targets import CLS, Target
from mixplug.models.self_distillation.views import Views
from mixplug.models.vit.encoder import build_vit
from mixplug.models.vit.encoder_base import RECOMPUTABLE
from mixplug.renamed import renamed_keys, renamed_names, warn
from mixplug.signatures import passing_on


@renamed_keys(centre_decay="center_decay")
class SelfDistillation(StudentTeacher, ABC):
    r"""Base of the methods: how a step goes from views to losses; see :class:`StudentTeacher`.

        L = 1 / T \sum_t (L_t^{views} + L_t^{LC})                                       (6.10)

    A method implements :meth:`teach`. It may declare further targets by :meth:`add_target`, a mask
    token by :meth:`add_mask_token`, and override :meth:`losses` and :meth:`monitors` to add terms.
    The constructor of a method may take ``**settings`` and pass them on: its signature, and so its
    keys in a config, then contain those of its base class.

    Args:
        backbone: a vision transformer of timm or mmpretrain, the name of a model of timm, or keys
            of :func:`mixplug.models.vit.build_timm_vit`. The student uses it itself, not a copy.
        head: keys of :class:`mixplug.models.self_distillation.DINOHead` without ``in_dim``, for the
            head of class tokens.
        heads: number of heads of the last block's attention (Table 6.7b); None keeps it.
        student_temperature: τ_s, temperature of the student for the target 'cls'.
        teacher_temperature: τ_t, that of the teacher; an attribute that schedules may set.
        center_decay: weight of the old center of the target 'cls'.
        ema_decay: α, weight of the old teacher; an attribute that schedules may set.
        reduction: 'mean' divides the losses of class tokens by their number of terms, 2 S + 2 m;
            'sum' is (6.8) and (6.9) as printed. Both are means over frames and clips.
        seed: seed of all random draws, together with ``steps`` and the rank.
        recompute: which intermediate results of the student are computed again in the backward
            pass instead of being stored. Values do not change. 'norm' costs one or two percent of
            the time and saves an eighth of the memory, 'activation' twice as much of both.

    Attributes:
        loss_name: name of the loss of the large views.

    Raises:
        ValueError: an unknown backbone, or a setting that is not allowed.
    """

    loss_name: str = "loss_global"

    def __init__(
        self,
        backbone: nn.Module | Mapping[str, Any] | str,
        head: Mapping[str, Any] | None = None,
        heads: int | None = None,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        center_decay: float = 0.9,
        ema_decay: float = 0.996,
        reduction: str = "mean",
        seed: int = 0,
        recompute: Sequence[str] = RECOMPUTABLE,
    ) -> None:
        self._require(0 <= ema_decay <= 1, "ema_decay", ema_decay, "in [0, 1]")
        known = not isinstance(recompute, str) and set(recompute) <= set(RECOMPUTABLE)
        self._require(known, "recompute", recompute, f"some of {RECOMPUTABLE}")
        allowed = f"in {checks.REDUCTIONS}"
        self._require(reduction in checks.REDUCTIONS, "reduction", reduction, allowed)
        target = Target(
            name=CLS, head=head, student_temperature=student_temperature,
            teacher_temperature=teacher_temperature, center_decay=center_decay,
        )  # fmt: skip
        super().__init__(build_vit(backbone, heads), target, ema_decay)
        self.reduction, self.seed, self.recompute = reduction, seed, tuple(recompute)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the keys that a constructor passes on to its base in the signature of the class."""
        super().__init_subclass__(**kwargs)
        if "views_key" in cls.__dict__:
            warn(f"The attribute {cls.__name__}.views_key", "loss_name")
            cls.loss_name = cls.__dict__["views_key"]
        if "__init__" in cls.__dict__:
            base = next(c for c in cls.__mro__[1:] if "__init__" in c.__dict__)
            cls.__signature__ = passing_on(cls.__init__, base)  # type: ignore[attr-defined]

    def forward(self, views: Views) -> dict[str, Tensor]:
        """The losses of a batch of clips, and scalars that show a collapse.

        Args:
            views: of B clips of T frames.

        Returns:
            Scalars: the losses, whose names start with 'loss' and whose sum is L, and the
            monitors, which are detached. See :meth:`losses` and :meth:`monitors`.

        Raises:
            ValueError: views of another shape, or see :class:`mixplug.models.vit.Encoder`.
        """
        checks.require_views(type(self).__name__, views)
        draws = sampling.generators(self.seed, self.count_step(), rank())
        with torch.no_grad():
            teacher = self.teach(views.large, draws.local)
            targets = {name: self._probabilities(name, teacher) for name in self.targets}
        student, small = self.predict(teacher, views.small)
        outputs = StepOutput(views, teacher, targets, student, small)
        losses = self.losses(outputs)
        with torch.no_grad():
            monitors = {**self.monitors(outputs, losses), **teacher.monitors}
        checks.require_names(type(self).__name__, losses, monitors)
        return {**losses, **monitors}

    @abstractmethod
    def teach(self, large: Tensor, generator: torch.Generator) -> TeacherOutput:
        """The teacher's pass over the large views, and what the student sees in their place.

        It runs without gradients.

        Args:
            large: (2, B, T, 3, H, W).
            generator: of this rank's random draws in this step, on the CPU.
        """

    def predict(
        self, teacher: TeacherOutput, small: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The student's logits of every target, as :class:`StepOutput` has them.

        Patch tokens are computed only if a target needs them, in the pass of the class tokens.

        Args:
            teacher: with the images, and their mask.
            small: views (m, B, T, 3, h, w), or None.

        Returns:
            Logits of the large views, and of the small ones.
        """
        encoder, versions = self.student_encoder, teacher.images.shape[1]
        images = teacher.images.flatten(0, 1)
        mask = None if teacher.mask is None else teacher.mask.flatten(0, 1)
        tokens: dict[str, list[Tensor]] = {}
        if any(target.tokens == "patch" for target in self.targets.values()):
            cls, patches = encoder.cls_and_patches(images, self.recompute, mask)
            tokens = {"cls": [cls], "patch": [patches]}
        else:
            tokens = {"cls": [encoder.cls(images, self.recompute, mask)]}
        if small is not None:
            tokens["cls"].append(encoder.cls(small.flatten(0, 2), self.recompute))
        large, local = {}, {}
        for name, target in self.targets.items():
            parts = tokens[target.tokens]
            joined = parts[0] if len(parts) == 1 else torch.cat(parts)
            logits = self.head_of(self.student, target)(joined)
            views = logits.split([len(part) for part in parts])
            large[name] = views[0].unflatten(0, (2, -1, versions))
            if small is not None and len(views) == 2:
                local[name] = views[1].unflatten(0, (len(small), -1))
        return large, local

    def losses(self, outputs: StepOutput) -> dict[str, Tensor]:
        """The terms of the loss; a method may override this to add terms to those of its base.

        Args:
            outputs: of teacher and student in this step.

        Returns:
            Scalars whose names start with 'loss'. Here these are the losses of class tokens: the
            loss of the large views (6.8) under :attr:`loss_name`, and with small views
            'loss_local' (6.9).
        """
        target, student = outputs.targets[CLS], outputs.student[CLS]
        small, temperature = outputs.small.get(CLS), self.targets[CLS].student_temperature
        scale = 1 / self._terms(outputs) if self.reduction == "mean" else 1.0
        losses = {self.loss_name: scale * cross_view_loss(target, student, temperature)}
        if small is not None:
            losses["loss_local"] = scale * local_loss(target, small, temperature)
        return losses

    def monitors(self, outputs: StepOutput, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars to log, computed without gradients; a method may override this to add some.

        Args:
            outputs: of teacher and student in this step.
            losses: the terms of :meth:`losses`.

        Returns:
            ``teacher_entropy``, ln K if the teacher's outputs are all equal and 0 if one of them
            has all the probability; ``teacher_kl``, the divergence of the student from the
            teacher; ``center_norm``. A further target adds ``teacher_entropy_NAME``
            and ``center_norm_NAME``. The names of monitors must not contain 'loss'.
        """
        spread, terms = entropy(outputs.targets[CLS]).mean(), self._terms(outputs)
        own = [losses[name].detach() for name in (self.loss_name, "loss_local") if name in losses]
        scale = 1 / terms if self.reduction == "mean" else 1.0
        found = {"teacher_entropy": spread}
        if own:
            found["teacher_kl"] = torch.stack(own).sum() / (scale * terms) - spread
        found["center_norm"] = self.centers[CLS].norm()
        for name in [name for name in self.targets if name != CLS]:
            found[f"teacher_entropy_{name}"] = entropy(outputs.targets[name]).mean()
            found[f"center_norm_{name}"] = self.centers[name].norm()
        return found

    def _probabilities(self, name: str, teacher: TeacherOutput) -> Tensor:
        """The teacher's probabilities for a target; in training its logits count for the center."""
        target = self.targets[name]
        tokens = teacher.class_tokens if target.tokens == "cls" else teacher.patch_tokens
        if tokens is None:
            raise ValueError(
                f"{type(self).__name__} has the target {name!r} of patches, so its method teach "
                f"needs to return patch_tokens, got None."
            )
        logits = self.head_of(self.teacher, target)(tokens)
        if self.training:
            self.collect(name, logits)
        center, temperature = self.centers[name], target.teacher_temperature
        return teacher_probabilities(logits, center, temperature).unflatten(0, (2, -1))

    @staticmethod
    def _terms(outputs: StepOutput) -> int:
        """How many cross-entropies of class tokens there are for a frame: 2 S + 2 m."""
        small = outputs.small.get(CLS)
        return 2 * (outputs.student[CLS].shape[2] + (0 if small is None else len(small)))

    def _require(self, holds: bool, key: str, value: object, allowed: str) -> None:
        checks.require(type(self).__name__, holds, key, value, allowed)


KINDS["selfsup"] = SelfDistillation
__getattr__ = renamed_names(__name__, {"Taught": TeacherOutput})
