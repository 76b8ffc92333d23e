"""timm: its training task with a mixer, and its losses as criteria."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
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
from mixplug.criterion import Criterion, as_criterion, cross_entropy, register, require_rows
from mixplug.hosts.timm.loader import EpochCount, TrainingLoader
from mixplug.hosts.timm.stages import timm_stages
from mixplug.mixed import HullMixed, Mixed
from mixplug.mixers.base import Mixer
from mixplug.mixers.known import labeled
from mixplug.stages.pixels import Pixels

_FIRST_STEPS = 20
LEARNED = "mixup."  # prefix of the mixer's parameters in the model


@register(SoftTargetCrossEntropy)
def _(loss: SoftTargetCrossEntropy) -> Criterion:
    return cross_entropy()


@register(LabelSmoothingCrossEntropy)
def _(loss: LabelSmoothingCrossEntropy) -> Criterion:
    return cross_entropy(loss.smoothing)


@register(BinaryCrossEntropy)
def _(loss: BinaryCrossEntropy) -> Criterion:
    smooth_dense = getattr(loss, "smooth_dense", False)  # newer than timm 1.0.27

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
    raise ValueError("--jsd-loss compares augmented splits of a batch, so it cannot be mixed.")


class MixupTask(ClassificationTask):
    """timm's classification task with a mixer. :func:`bind` makes the class that train.py uses.

    ``forward`` mixes if the model is in training mode. In a checkpoint, ``state_dict`` is that of
    the plain model. Everything else that a resumed run needs, including the mixer's parameters, is
    in timm's ``task_state``.

    Attributes:
        epoch: of the latest batch. A loop of your own sets it at the start of every epoch, counted
            from 0, if the mixer has an ``off_epoch``; under ``timm_hooks.train`` it is counted by
            the passes over the training loader.
    """

    mixer: Mixer
    start_epoch: int | None = None
    loader: TrainingLoader | None = None
    built = False

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        """As in timm's task."""
        super().__init__(model, *args, **kwargs)
        type(self).built = True
        criterion = as_criterion(self.criterion)  # raises now if it cannot be mixed
        self.stages = timm_stages(model, call=self.run, pixels=self._pixels)
        device = next(model.parameters()).device
        name = type(self.criterion).__name__
        require_rows(criterion, self.stages.num_classes, device, name)
        self.mixer.attach(self.stages)
        self.seed, self.rank, self.step = ranks.shared_seed(), ranks.rank(), 0
        fixed = self.start_epoch is not None
        self._epochs = EpochCount(self.loader, self.start_epoch or 0, fixed)

    @property
    def epoch(self) -> int | None:
        """See the class."""
        return self._epochs.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epochs.set_epoch(epoch)

    def resume_at(self, epoch: int | None) -> None:
        """A resumed run begins with this epoch, unless ``--start-epoch`` gives another."""
        self._epochs.resume(epoch)
        if self.loader is not None and self.start_epoch is None:
            self.loader.first = epoch or 0

    def run(self, x: Tensor) -> Tensor:
        """Run the model with the wrappers that train.py has put around it."""
        return self.trainable_module(x)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Loss of the mixed batch, and logits for timm's metrics."""
        if not self.trainable_module.training:
            return super().forward(input, target)
        if not isinstance(input, Tensor):
            raise ValueError(
                "Mixing needs images in a tensor, but --naflex-loader gives packed patches."
            )
        criterion = as_criterion(self.criterion)
        if not target.is_floating_point():
            target = labeled(target, criterion.ignore_index)[0]
        if target.is_floating_point():  # soft or multi-label rows are not smoothed again
            criterion = replace(criterion, smoothing=0.0)
        draws = sampling.generators(self.seed, self.step, self.rank)
        epoch = self._epochs.step()
        self._require_epoch(epoch)
        mixed = self.mixer(self.stages, input, target, draws, epoch, self.step)
        self._watch_threshold(mixed)
        self.step += 1
        output = mixed.logits if mixed.output is None else mixed.output
        return {"loss": mixed.loss(criterion), "output": output}

    def _watch_threshold(self, mixed: Mixed | HullMixed) -> None:
        """Warn, in the first steps, if --bce-target-thresh leaves mixed targets without a class."""
        threshold = getattr(self.criterion, "target_threshold", None)
        if threshold is None or self.step >= _FIRST_STEPS or not len(mixed.logits):
            return
        empty = (mixed.target.amax(-1) <= threshold).float().mean().item()
        if empty > 0.5:
            warnings.warn(
                f"{self.mixer.name} mixes targets of which {empty:.0%} have no class above "
                f"--bce-target-thresh {threshold}, so the loss trains all their classes to 0. "
                f"Leave the threshold out, or mix fewer examples (MultiMix: m).",
                stacklevel=2,
            )

    def _require_epoch(self, epoch: int | None) -> None:
        if epoch is None and self.mixer.off_epoch is not None:
            raise ValueError(
                f"{self.mixer.name} has off_epoch={self.mixer.off_epoch}, but the task does not "
                f"know the epoch of this batch. In your own loop set task.epoch at the start of "
                f"every epoch. Under timm_hooks.train the script must make its training loader "
                f"with timm.data.create_loader. If it loads a checkpoint without the mixer's "
                f"state, it must use timm.task.resume_task_checkpoint, or pass --start-epoch."
            )

    def _pixels(self) -> Pixels | None:
        return None if self.loader is None else self.loader.pixels

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """Parameters to clip. ``exclude_head`` leaves out the classifier, but not the mixer's."""
        named = list(self.get_trainable_module().named_parameters())
        own = [p for name, p in named if LEARNED not in name]
        learned = [p for name, p in named if LEARNED in name]
        return (own[:-2] if exclude_head else own) + learned

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """Seed, step and epoch of the mixer's draws, and its parameters."""
        learned = _learned(module or self.get_trainable_module(ema=ema))
        mine = {"seed": self.seed, "step": self.step, "epoch": self.epoch}
        return {**super().get_task_state(module, ema=ema), "mixplug": {**mine, "learned": learned}}

    def load_task_state(
        self,
        state: dict | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Restore the seed, the step and the epoch from which the mixer continues."""
        super().load_task_state(state, strict=strict, module=module, ema=ema)
        if ema:
            return
        mine = (state or {}).get("mixplug", {})
        self.seed, self.step = mine.get("seed", self.seed), mine.get("step", self.step)
        done = mine.get("epoch")
        self.resume_at(None if done is None else done + 1)

    def get_checkpoint_state(self, ema: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Entries of timm's checkpoint; its state dict leaves out the mixer's parameters."""
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
        """Load a plain timm checkpoint, or one of this task, with the mixer's parameters."""
        current = _learned(self.get_trainable_module(ema=ema))
        saved = (task_state or {}).get("mixplug", {}).get("learned", {})
        learned = {k: saved.get(k, v) for k, v in current.items()}
        super().load_checkpoint_state({**learned, **state_dict}, task_state, ema, strict)


def _learned(model: nn.Module) -> dict[str, Tensor]:
    """The mixer's part of a model's state dict."""
    state = unwrap_model(model).state_dict()
    return {k: v for k, v in state.items() if k.startswith(LEARNED)}


def bind(
    base: type[ClassificationTask],
    mixer: Mixer,
    start_epoch: int | None = None,
    loader: TrainingLoader | None = None,
) -> type[MixupTask]:
    """Make a subclass of ``base`` that trains with a mixer.

    It takes the same arguments as ``base``, so it can replace it in a training script.

    Args:
        base: timm's ClassificationTask, or a subclass of it.
        mixer: the mixer to train with.
        start_epoch: train.py's ``--start-epoch``.
        loader: watches the training loader; None in a loop that sets ``task.epoch`` itself.
    """
    bases = (MixupTask,) if base is ClassificationTask else (MixupTask, base)
    own = {"mixer": mixer, "start_epoch": start_epoch, "loader": loader}
    return type(f"Mixup{base.__name__}", bases, own)


def resuming(resume: Callable[..., int | None]) -> Callable[..., int | None]:
    """Wrap timm's ``resume_task_checkpoint`` so that it also passes the next epoch to the task.

    A checkpoint of plain timm has no state of the mixer, in which the task finds the epoch itself.
    """

    @functools.wraps(resume)
    def resume_with_epoch(task: nn.Module, *args: Any, **kwargs: Any) -> int | None:
        epoch = resume(task, *args, **kwargs)
        if isinstance(task, MixupTask):
            task.resume_at(epoch or 0)  # as train.py takes it
        return epoch

    return resume_with_epoch


class _EpochCounter(nn.Module):
    """What mixplug 0.1 added to a model to count epochs. Pickled models contain it."""
