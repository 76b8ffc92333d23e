"""timm: its models in stages, its losses term by term, its training task with a mixer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from timm.loss import (
    BinaryCrossEntropy,
    JsdCrossEntropy,
    LabelSmoothingCrossEntropy,
    SoftTargetCrossEntropy,
)
from timm.task import ClassificationTask
from timm.utils import unwrap_model
from torch import Tensor, nn

from mixplug import distributed as ranks
from mixplug import sampling
from mixplug.criterion import Criterion, as_criterion, cross_entropy, register
from mixplug.hosts.timm.stages import timm_stages
from mixplug.mixers.base import Mixer

LEARNED = "mixup."  # prefix of the mixer's own parameters on the model


@register(SoftTargetCrossEntropy)
def _(loss: SoftTargetCrossEntropy) -> Criterion:
    return cross_entropy()


@register(LabelSmoothingCrossEntropy)
def _(loss: LabelSmoothingCrossEntropy) -> Criterion:
    return cross_entropy(loss.smoothing)


@register(BinaryCrossEntropy)
def _(loss: BinaryCrossEntropy) -> Criterion:
    smooth_dense = getattr(loss, "smooth_dense", False)  # came after timm 1.0.27

    def terms(logits: Tensor, target: Tensor) -> Tensor:
        if smooth_dense:
            target = target * (1 - loss.smoothing) + 0.5 * loss.smoothing
        if loss.target_threshold is not None:
            target = target.gt(loss.target_threshold).to(target.dtype)
        per_class = F.binary_cross_entropy_with_logits(
            logits, target, loss.weight, pos_weight=loss.pos_weight, reduction="none"
        )
        return per_class.sum(-1) if loss.sum_classes else per_class.mean(-1)

    return Criterion(terms, 0.0 if smooth_dense else loss.smoothing)


@register(JsdCrossEntropy)
def _(loss: JsdCrossEntropy) -> Criterion:
    raise ValueError("--jsd-loss compares augmented splits of a batch and cannot be mixed.")


class _EpochCounter(nn.Module):
    """Counts epochs, of which train.py tells its task nothing.

    It lives in the model, without parameters or state, and sees ``model.train()``, which opens
    every epoch of train.py and of most other loops; the first after a step is a new epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        self.stepped = False

    def train(self, mode: bool = True) -> _EpochCounter:
        if mode and self.stepped:
            self.epoch, self.stepped = self.epoch + 1, False
        return super().train(mode)


class MixupTask(ClassificationTask):
    """timm's classification task with a mixer; :func:`bind` makes the class that train.py calls.

    ``forward`` mixes while the model is in training mode. The state dict that a checkpoint gets is
    the model's own; what else a resumed run needs, the mixer's parameters among it, goes into
    timm's ``task_state``.
    """

    mixer: Mixer
    start_epoch: int | None = None
    built = False

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Take what timm's task takes."""
        super().__init__(model, *args, **kwargs)
        type(self).built = True
        as_criterion(self.criterion)  # says at once if it cannot be mixed
        self.stages = timm_stages(model, call=self.run)
        self.mixer.attach(self.stages)
        self.seed, self.rank, self.step = ranks.shared_seed(), ranks.rank(), 0
        self.counter = _EpochCounter()
        self.counter.epoch = self.start_epoch or 0
        model.add_module("mixup_epochs", self.counter)

    def run(self, x: Tensor) -> Tensor:
        """The model, as train.py wrapped it by now."""
        return self.trainable_module(x)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Loss of the mixed batch, and the logits timm's metrics see."""
        if not self.trainable_module.training:
            return super().forward(input, target)
        if not isinstance(input, Tensor):
            raise ValueError(
                "Mixing needs images in a tensor; --naflex-loader gives packed patches."
            )
        criterion = as_criterion(self.criterion)
        if target.is_floating_point():  # multi-label rows are as soft as they are meant to be
            criterion = replace(criterion, smoothing=0.0)
        draws = sampling.generators(self.seed, self.step, self.rank)
        mixed = self.mixer(self.stages, input, target, draws, self.counter.epoch, self.step)
        self.step, self.counter.stepped = self.step + 1, True
        output = mixed.logits if mixed.output is None else mixed.output
        return {"loss": mixed.loss(criterion), "output": output}

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """What to clip; the head, timm's last two parameters, does not include the mixer's."""
        named = list(self.get_trainable_module().named_parameters())
        own = [p for name, p in named if LEARNED not in name]
        learned = [p for name, p in named if LEARNED in name]
        return (own[:-2] if exclude_head else own) + learned

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """Seed, step and epoch of the mixer's draws, and its parameters."""
        learned = _learned(module or self.get_trainable_module(ema=ema))
        mine = {"seed": self.seed, "step": self.step, "epoch": self.counter.epoch}
        return {**super().get_task_state(module, ema=ema), "mixplug": {**mine, "learned": learned}}

    def load_task_state(
        self,
        state: dict | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Go on with the draws where they stopped."""
        super().load_task_state(state, strict=strict, module=module, ema=ema)
        mine = (state or {}).get("mixplug")
        if mine and not ema:
            self.seed, self.step = mine["seed"], mine["step"]
            if self.start_epoch is None:
                self.counter.epoch, self.counter.stepped = mine["epoch"], True

    def get_checkpoint_state(self, ema: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Timm's entries, the state dict without the mixer's parameters."""
        state = super().get_checkpoint_state(ema=ema, **kwargs)
        for key in ("state_dict", "state_dict_ema"):
            if key in state:
                state[key] = {k: v for k, v in state[key].items() if not k.startswith(LEARNED)}
        return state

    def load_checkpoint_state(
        self,
        state_dict: dict,
        task_state: dict | None = None,
        ema: bool = False,
        strict: bool = True,
    ) -> None:
        """A plain timm checkpoint, or one of this task with the mixer's parameters beside it."""
        current = _learned(self.get_trainable_module(ema=ema))
        saved = (task_state or {}).get("mixplug", {}).get("learned", {})
        learned = {k: saved.get(k, v) for k, v in current.items()}
        super().load_checkpoint_state({**learned, **state_dict}, task_state, ema, strict)


def _learned(model: nn.Module) -> dict[str, Tensor]:
    """The mixer's own part of a model's state dict."""
    state = unwrap_model(model).state_dict()
    return {k: v for k, v in state.items() if k.startswith(LEARNED)}


def bind(base: type[ClassificationTask], mixer: Mixer, start_epoch: int | None = None) -> type:
    """A task class that is ``base`` with a mixer, to stand in its place.

    Args:
        base: timm's ClassificationTask, or a subclass of it.
        mixer: what to train with.
        start_epoch: train.py's ``--start-epoch``.
    """
    bases = (MixupTask,) if base is ClassificationTask else (MixupTask, base)
    return type(f"Mixup{base.__name__}", bases, {"mixer": mixer, "start_epoch": start_epoch})
