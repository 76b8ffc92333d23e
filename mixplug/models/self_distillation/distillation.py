"""Self-distillation: a student, the teacher that follows it, and the center of its outputs.

Letters: B clips, T frames, S versions of a large view that the student sees, m small views, D
width, K head outputs.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.catalog import KINDS, register
from mixplug.distributed import rank
from mixplug.functional.distill import (
    cross_view_loss,
    entropy,
    local_loss,
    teacher_probabilities,
)
from mixplug.functional.precision import exact_dtype
from mixplug.models.self_distillation.average import RunningSum, follow
from mixplug.models.self_distillation.dino_head import DINOHead, Network, own_name
from mixplug.models.self_distillation.views import Views, normalized
from mixplug.models.vit.encoder import Encoder, as_encoder, made_vit
from mixplug.models.vit.encoder_base import RECOMPUTABLE
from mixplug.renamed import renamed_keys

__all__ = ["DINO", "SelfDistillation", "Views", "normalized"]

REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class Taught:
    """What comes of the teacher's pass over large views.

    Attributes:
        tokens: class tokens, (2 B T, D).
        images: what the student sees instead, (2 B T, S, 3, H, W).
        monitors: scalars to log.
    """

    tokens: Tensor
    images: Tensor
    monitors: Mapping[str, Tensor] = field(default_factory=dict)


@renamed_keys(centre_decay="center_decay")
class SelfDistillation(nn.Module, ABC):
    r"""Base of methods in which a student learns to predict its own moving average.

        L = 1 / T \sum_t (L_t^{views} + L_t^{LC})                                       (6.10)

    The module owns all state, so that its ``state_dict`` is a complete checkpoint: ``student``,
    ``teacher``, ``center``, and ``steps``, how many batches it has seen. :meth:`attach` ties
    teacher and center to an optimizer, after which a plain training loop, gradient accumulation,
    AMP and DDP are right without knowing of them.

    Args:
        backbone: a vision transformer of timm or mmpretrain, the name of one of timm's, or keys of
            :func:`mixplug.models.vit.build_timm_vit`. It becomes the student's.
        head: keys of :class:`mixplug.models.self_distillation.DINOHead` without ``in_dim``.
        heads: into how many heads the last block is split anew (Table 6.7b), None leaves it.
        student_temperature: τ_s.
        teacher_temperature: τ_t; an attribute that schedules may set.
        center_decay: weight of the old center.
        ema_decay: α, the weight of the old teacher; an attribute that schedules may set.
        reduction: 'mean' divides the loss by its number of terms, 2 S + 2 m; 'sum' is (6.8) and
            (6.9) as printed. Over frames and clips it is the mean in both.
        seed: of all draws, which depend on it, on ``steps`` and on the rank.
        recompute: what of the student is made again in the backward pass and not kept for it;
            nothing else changes. 'norm' takes a percent or two of the time for an eighth of the
            memory, 'activation' twice as much for twice as much.

    Attributes:
        freeze_last_layer: whether steps leave the head's last layer as it is; schedules may set it.

    Raises:
        ValueError: a backbone that is not known, or a setting that is not allowed.
    """

    center: Tensor
    steps: Tensor
    views_key: str  # of the loss of large views

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
        super().__init__()
        self._require(student_temperature > 0, "student_temperature", student_temperature, "> 0")
        self._require(teacher_temperature > 0, "teacher_temperature", teacher_temperature, "> 0")
        self._require(0 <= center_decay <= 1, "center_decay", center_decay, "in [0, 1]")
        self._require(0 <= ema_decay <= 1, "ema_decay", ema_decay, "in [0, 1]")
        self._require(reduction in REDUCTIONS, "reduction", reduction, f"in {REDUCTIONS}")
        known = not isinstance(recompute, str) and set(recompute) <= set(RECOMPUTABLE)
        self._require(known, "recompute", recompute, f"some of {RECOMPUTABLE}")
        self.recompute = tuple(recompute)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.center_decay, self.ema_decay = center_decay, ema_decay
        self.reduction, self.seed, self.freeze_last_layer = reduction, seed, False
        vit = made_vit(backbone, heads)
        self.student = Network(vit, DINOHead(as_encoder(vit).width, **(head or {})))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("center", torch.zeros(self.student.head.out_dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._step: int | None = 0  # of ``steps`` on the host: reading that would wait for a GPU
        self._seen = RunningSum()  # teacher's logits since the last step
        for parameter in self.student.head.last_layer.parameters():
            if parameter.requires_grad:
                parameter.register_hook(self._unless_frozen)
        self.train()

    @property
    def student_encoder(self) -> Encoder:
        """The view onto the student's backbone."""
        return as_encoder(self.student.backbone)

    @property
    def teacher_encoder(self) -> Encoder:
        """The view onto the teacher's backbone."""
        return as_encoder(self.teacher.backbone)

    def train(self, mode: bool = True) -> SelfDistillation:
        """As of any module, but the teacher has no stochastic depth at any time."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, views: Views) -> dict[str, Tensor]:
        """The losses of a batch of clips, and what shows a collapse.

        Args:
            views: of B clips of T frames.

        Returns:
            Scalars: terms whose names start with 'loss' and whose sum is L, 'loss_local' only with
            small views; and, detached, ``teacher_entropy`` (ln K where all outputs are equal, 0
            where one has all), ``teacher_kl``, how far the student is from the teacher, and
            ``center_norm``.

        Raises:
            ValueError: views that do not fit, or see :class:`mixplug.models.vit.Encoder`.
        """
        self._check(views)
        draws = sampling.generators(self.seed, self._next_step(), rank())
        with torch.no_grad():
            taught = self._teach(views.large, draws.local)
            logits = self.teacher.head(taught.tokens)
            target = teacher_probabilities(logits, self.center, self.teacher_temperature)
            target = target.unflatten(0, (2, -1))  # (2, B T, K)
            if self.training:
                self._seen.add(logits.to(exact_dtype(logits)))
        return {**self._losses(target, taught.images, views.small), **taught.monitors}

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Let every step of an optimizer move teacher and center; doing so twice is once.

        Before a step the gradient of the last layer is dropped while ``freeze_last_layer``; after
        it ``teacher <- ema_decay teacher + (1 - ema_decay) student``, and the center moves to the
        mean over all batches since the last step, and over all processes.
        """
        if getattr(optimizer, "_moves_teacher_of", None) is self:
            return
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)
        optimizer._moves_teacher_of = self  # type: ignore[attr-defined]

    @abstractmethod
    def _teach(self, large: Tensor, source: torch.Generator) -> Taught:
        """The teacher's one pass.

        Args:
            large: (2, B, T, 3, H, W).
            source: of this rank's draws.
        """

    def _losses(self, target: Tensor, images: Tensor, small: Tensor | None) -> dict[str, Tensor]:
        versions, locals_ = images.shape[1], 0 if small is None else len(small)
        view = self.student_encoder
        tokens = [view.cls(images.flatten(0, 1), self.recompute)]
        if small is not None:
            tokens.append(view.cls(small.flatten(0, 2), self.recompute))
        logits = self.student.head(torch.cat(tokens)).split([len(t) for t in tokens])
        terms = 2 * (versions + locals_)
        scale = 1 / terms if self.reduction == "mean" else 1.0
        seen = logits[0].unflatten(0, (2, -1, versions))  # (2, B T, S, K)
        losses = {self.views_key: scale * cross_view_loss(target, seen, self.student_temperature)}
        if small is not None:
            crops = logits[1].unflatten(0, (locals_, -1))
            losses["loss_local"] = scale * local_loss(target, crops, self.student_temperature)
        with torch.no_grad():
            spread = entropy(target).mean()
            total = torch.stack([loss.detach() for loss in losses.values()]).sum()
            monitors = {
                "teacher_entropy": spread,
                "teacher_kl": total / (scale * terms) - spread,
                "center_norm": self.center.norm(),
            }
        return {**losses, **monitors}

    def _next_step(self) -> int:
        if self._step is None:
            self._step = int(self.steps)
        step = self._step
        if self.training:
            self._step += 1
            self.steps += 1
        return step

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if f"{prefix}centre" in state_dict:  # its name before 0.2
            state_dict[f"{prefix}center"] = state_dict.pop(f"{prefix}centre")
        self._require_same(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._step, self._seen = None, RunningSum()

    def _require_same(self, state_dict: Mapping[str, Tensor], prefix: str) -> None:
        """Refuse what hosts would load in part, or not at all, with a line in their logs."""
        theirs = {
            own_name(name.removeprefix(prefix)): tuple(tensor.shape)
            for name, tensor in state_dict.items()
            if name.startswith(prefix)
        }
        own = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        wrong = [n for n in {**own, **theirs} if own.get(n) != theirs.get(n)]
        if wrong:
            few = [f"{n}: {theirs.get(n, 'none')} there, {own.get(n, 'none')} here" for n in wrong]
            more = f"; and {len(few) - 3} more" if len(few) > 3 else ""
            raise ValueError(
                f"The checkpoint is of another architecture than this {type(self).__name__}. "
                f"{'; '.join(few[:3])}{more}. `mixplug weights` compares and converts backbones."
            )

    def _unless_frozen(self, gradient: Tensor) -> Tensor:
        """Nothing of a frozen layer, so that it does not count in a norm that hosts clip."""
        return torch.zeros_like(gradient) if self.freeze_last_layer else gradient

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self.freeze_last_layer:
            for parameter in self.student.head.last_layer.parameters():
                parameter.grad = None

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        follow(self.teacher, self.student, self.ema_decay)
        self._seen.move(self.center, self.center_decay)

    def _check(self, views: Views) -> None:
        large, small = views.large, views.small
        fits = small is None or (small.dim() == 6 and small.shape[1:4] == large.shape[1:4])
        if large.dim() != 6 or len(large) != 2 or not fits:
            raise ValueError(
                f"{type(self).__name__} needs large views (2, B, T, 3, H, W) and small ones "
                f"(m, B, T, 3, h, w) or None, got {tuple(large.shape)} and "
                f"{None if small is None else tuple(small.shape)}."
            )

    def _require(self, holds: bool, key: str, value: object, allowed: str) -> None:
        if not holds:
            raise ValueError(f"{type(self).__name__} needs {key} {allowed}, got {value!r}.")


@register("DINO", kind="selfsup", reference="thesis 6.4, Caron 2021", hosts=("mm", "torch"))
class DINO(SelfDistillation):
    """The baseline: the student sees the large views as they are, each against the other.

    See :class:`SelfDistillation`; the losses are ``loss_global`` and ``loss_local``.
    """

    views_key = "loss_global"

    def _teach(self, large: Tensor, source: torch.Generator) -> Taught:
        frames = large.flatten(0, 2)
        return Taught(self.teacher_encoder.cls(frames), frames[:, None])


KINDS["selfsup"] = SelfDistillation
