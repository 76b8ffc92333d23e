"""The networks of self-distillation and their state: student, teacher, heads and centers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.catalog import build
from mixplug.functional.precision import exact_dtype
from mixplug.models.self_distillation.average import RunningSum, update_teacher
from mixplug.models.self_distillation.checks import require_same_tensors
from mixplug.models.self_distillation.dino_head import DINOHead
from mixplug.models.self_distillation.network import Network
from mixplug.models.self_distillation.targets import CLS, Target
from mixplug.models.vit.encoder import Encoder, as_encoder
from mixplug.renamed import warn


def _of_cls(key: str, meaning: str) -> Any:
    """An attribute of the target 'cls' as an attribute of the method."""

    def get(self: StudentTeacher) -> float:
        value: float = getattr(self.targets[CLS], key)
        return value

    def assign(self: StudentTeacher, value: float) -> None:
        setattr(self.targets[CLS], key, value)

    return property(get, assign, doc=meaning)


class StudentTeacher(nn.Module):
    """A student and the teacher that averages it, with heads and a center for every target.

    All state is in the module, so that its ``state_dict`` is a complete checkpoint: ``student``,
    ``teacher``, the centers, and ``steps``, the number of batches seen in training. After
    :meth:`attach` every step of the optimizer updates teacher and centers. Training loops, gradient
    accumulation, AMP and DDP then need no further code.

    Args:
        backbone: a vision transformer of timm or mmpretrain. The student uses it itself, the
            teacher a copy.
        target: the first target; it must have the name 'cls'.
        ema_decay: α, weight of the old teacher.

    Attributes:
        targets: the targets by name, in the order in which they were declared, 'cls' first.
        ema_decay: schedules may set it.
        freeze_last_layer: whether steps leave the last layers of all heads unchanged; schedules may
            set it.

    Raises:
        ValueError: a setting that is not allowed.
    """

    steps: Tensor

    student_temperature = _of_cls("student_temperature", "τ_s of the target 'cls'.")
    teacher_temperature = _of_cls("teacher_temperature", "τ_t of the target 'cls'.")
    center_decay = _of_cls("center_decay", "Weight of the old center of 'cls'.")

    def __init__(self, backbone: nn.Module, target: Target, ema_decay: float) -> None:
        super().__init__()
        self.ema_decay, self.freeze_last_layer = ema_decay, False
        self.targets: dict[str, Target] = {}
        self._seen: dict[str, RunningSum] = {}  # logits of the teacher since the last step
        self.student = Network(backbone)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.add_target(target)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._step: int | None = 0  # ``steps`` on the host; reading the buffer would wait for a GPU
        self.train()

    @property
    def centre(self) -> Tensor:
        """The old name of :attr:`center`."""
        warn(f"The attribute {type(self).__name__}.centre", "center")
        center: Tensor = self.get_buffer("center")
        return center

    def add_target(self, target: Target) -> None:
        """Declare a target; to be called in the constructor of a method.

        The student gets a head, the teacher a copy of it, and the module a center, unless the
        target shares the heads of another. In the state dict they are ``student.heads.NAME``,
        ``teacher.heads.NAME`` and ``center_NAME``. Those of the target 'cls', which every method
        has, are ``student.head``, ``teacher.head`` and ``center``.

        Args:
            target: copied; :attr:`targets` holds the copy.

        Raises:
            ValueError: a name that is taken, or a setting that is not allowed.
        """
        target.check(type(self).__name__, self.targets)
        self.targets[target.name] = target = replace(target)
        if not isinstance(target.head, str):
            keys = {**(target.head or {}), "in_dim": self.student_encoder.width}
            head: DINOHead = build(DINOHead, **keys)
            self.student.add_head(target.name, head)
            self.teacher.add_head(target.name, copy.deepcopy(head).requires_grad_(False).eval())
            for parameter in head.last_layer.parameters():
                if parameter.requires_grad:
                    parameter.register_hook(self._unless_frozen)
        self.register_buffer(target.center, torch.zeros(self.head_of(self.student, target).out_dim))
        self._seen[target.name] = RunningSum()

    def add_mask_token(self) -> None:
        """Give the student a mask token, which replaces the patches that :meth:`teach` masks.

        It is a parameter of the student, ``student.mask_token``; the teacher has none.
        """
        self.student.add_mask_token(self.student_encoder.width)

    @property
    def student_encoder(self) -> Encoder:
        """The encoder of the student's backbone, with the mask token if there is one."""
        return as_encoder(self.student.backbone, self.student.mask_token)

    @property
    def teacher_encoder(self) -> Encoder:
        """The encoder of the teacher's backbone."""
        return as_encoder(self.teacher.backbone)

    @property
    def centers(self) -> dict[str, Tensor]:
        """The center (K,) of every target, by its name."""
        return {name: self.get_buffer(target.center) for name, target in self.targets.items()}

    def train(self, mode: bool = True) -> StudentTeacher:
        """Set the mode of the student; the teacher stays in evaluation mode, as without dropout."""
        super().train(mode)
        self.teacher.eval()
        return self

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Let every step of an optimizer update teacher and centers; a second call does nothing.

        Before a step, gradients of the heads' last layers are dropped if ``freeze_last_layer``.
        After a step, ``teacher <- ema_decay teacher + (1 - ema_decay) student``, and every center
        moves towards the mean over all batches since the last step and over all processes.
        """
        if getattr(optimizer, "_moves_teacher_of", None) is self:
            return
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)
        optimizer._moves_teacher_of = self  # type: ignore[attr-defined]

    def head_of(self, network: Network, target: Target) -> DINOHead:
        """The head of a target in one of the networks; it may be shared with another target."""
        while isinstance(target.head, str):
            target = self.targets[target.head]
        return network.head_of(target.name)

    def count_step(self) -> int:
        """The number of batches before this one; in training this one is counted too."""
        if self._step is None:
            self._step = int(self.steps)
        step = self._step
        if self.training:
            self._step += 1
            self.steps += 1
        return step

    def collect(self, target: str, logits: Tensor) -> None:
        """Count logits of the teacher (..., K) for the next update of a center."""
        self._seen[target].add(logits.flatten(0, -2).to(exact_dtype(logits)))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if f"{prefix}centre" in state_dict:  # the name before 0.2
            state_dict[f"{prefix}center"] = state_dict.pop(f"{prefix}centre")
        require_same_tensors(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._step, self._seen = None, {name: RunningSum() for name in self.targets}

    def _unless_frozen(self, gradient: Tensor) -> Tensor:
        """Zero for a frozen layer, so that it does not count in a gradient norm for clipping."""
        return torch.zeros_like(gradient) if self.freeze_last_layer else gradient

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not self.freeze_last_layer:
            return
        for target in self.targets.values():
            for parameter in self.head_of(self.student, target).last_layer.parameters():
                parameter.grad = None

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        update_teacher(self.teacher, self.student, self.ema_decay)
        for name, target in self.targets.items():
            self._seen[name].update(self.centers[name], target.center_decay)
