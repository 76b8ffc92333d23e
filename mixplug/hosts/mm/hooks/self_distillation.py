"""mmengine hook of self-distillation: schedules, updates of the teacher, and alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixplug.catalog import suggest
from mixplug.hosts.mm.hooks.mixup import unwrapped
from mixplug.models.self_distillation.schedules import cosine
from mixplug.models.self_distillation.targets import CLS
from mixplug.registry import HOOKS

_COLLAPSED = 0.02  # distance of the teacher's entropy from 0 or ln K, in shares of ln K

Range = tuple[float, float]


@HOOKS.register_module()
class DistillationHook(Hook):
    """Sets what a schedule changes, lets the optimizer update the teacher, and watches the losses.

    The Runner of such a model registers this hook by itself. Its keys are those of ``schedule``::

        schedule=dict(
            teacher_temperature=dict(cls=(0.04, 0.07), patch=(0.04, 0.06)),
            warmup_temperature_epochs=30)

    Args:
        ema_decay: weight α of the old teacher at the first and the last step, on a cosine.
        teacher_temperature: τ_t at the first step and after the warm-up, on a line: of the target
            'cls'; or a dictionary of targets by name. The temperature of other targets, and with
            None of all, stays as the method has it.
        warmup_temperature_epochs: length of that warm-up, or a dictionary of targets by name.
        freeze_last_layer_epochs: for how long steps leave the last layers of the heads unchanged.

    Raises:
        ValueError: a decay outside [0, 1], a temperature that is not positive, negative epochs.
        KeyError: before training, a target that the method does not have.
    """

    priority = "NORMAL"

    def __init__(
        self,
        ema_decay: Range = (0.996, 1.0),
        teacher_temperature: Range | Mapping[str, Range] | None = None,
        warmup_temperature_epochs: float | Mapping[str, float] = 0,
        freeze_last_layer_epochs: float = 1,
    ) -> None:
        if not isinstance(teacher_temperature, Mapping):
            given = teacher_temperature
            teacher_temperature = {} if given is None else {CLS: given}
        if not isinstance(warmup_temperature_epochs, Mapping):
            warmup_temperature_epochs = dict.fromkeys(
                teacher_temperature, warmup_temperature_epochs
            )
        _require_between("ema_decay", ema_decay, 0, 1)
        for pair in teacher_temperature.values():
            _require_between("teacher_temperature", pair, 1e-6, math.inf)
        for epochs in warmup_temperature_epochs.values():
            _require_between("warmup_temperature_epochs", (epochs,), 0, math.inf)
        _require_between("freeze_last_layer_epochs", (freeze_last_layer_epochs,), 0, math.inf)
        self.ema_decay, self.freeze_last_layer_epochs = ema_decay, freeze_last_layer_epochs
        self.teacher_temperature = dict(teacher_temperature)
        self.warmup_temperature_epochs = dict(warmup_temperature_epochs)
        self._written: str | None = None  # last checkpoint; mmengine names it before it is written

    def before_train(self, runner: Runner) -> None:
        """Attach the method to the optimizer, once.

        Raises:
            KeyError: the schedule names a target that the method does not have.
        """
        method = _method(runner)
        for name in (*self.teacher_temperature, *self.warmup_temperature_epochs):
            if name not in method.targets:
                raise KeyError(
                    f"{type(method).__name__} has no target {name!r}, which its schedule names."
                    f"{suggest(name, list(method.targets))}"
                )
        method.attach(runner.optim_wrapper.optimizer)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set decay, temperatures and freezing for this step."""
        method, step = _method(runner), runner.iter
        epoch = step / max(1, len(runner.train_dataloader))
        for name, (start, end) in self.teacher_temperature.items():
            part = min(1.0, epoch / (self.warmup_temperature_epochs.get(name) or 1e-9))
            method.targets[name].teacher_temperature = start + part * (end - start)
        method.ema_decay = cosine(*self.ema_decay, runner.max_iters)(step)
        method.freeze_last_layer = epoch < self.freeze_last_layer_epochs

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop at a loss that is not finite, before a checkpoint with its effects is written.

        Raises:
            FloatingPointError: with the term, the iteration and the last good checkpoint.
        """
        self._written = runner.message_hub.get_info("last_ckpt")
        terms = {key: value for key, value in (outputs or {}).items() if "loss" in key}
        self._require_finite(terms, runner.iter + 1)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Refuse to write tensors that are not finite: gradients can be so if the loss is finite.

        Raises:
            FloatingPointError: with the tensor, the iteration and the last good checkpoint.
        """
        self._require_finite(checkpoint["state_dict"], checkpoint["meta"]["iter"])

    def after_train_epoch(self, runner: Runner) -> None:
        """Warn if the teacher's outputs for a target are the same for all images."""
        for name, center in _method(runner).centers.items():
            key = "train/teacher_entropy" + ("" if name == CLS else f"_{name}")
            means = runner.message_hub.log_scalars.get(key)
            if means is None:  # a method whose monitors leave it out
                continue
            entropy = means.mean(len(runner.train_dataloader))
            share = entropy / math.log(len(center))
            if _COLLAPSED < share < 1 - _COLLAPSED:
                continue
            where = "one output" if share <= _COLLAPSED else "all outputs alike"
            runner.logger.warning(
                f"The teacher has collapsed to {where} for the target {name!r}: its entropy is "
                f"{entropy:.3f}, {share:.0%} of ln K. A lower teacher_temperature works against "
                f"equal outputs, a higher one or a faster center against a single output."
            )

    def _require_finite(self, tensors: Mapping[str, Any], step: int) -> None:
        bad = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
        if bad:
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            raise FloatingPointError(
                f"{', '.join(bad[:3])}{more} not finite at iteration {step}. Last good "
                f"checkpoint: {self._written or 'none was written yet'}."
            )


def _method(runner: Runner) -> Any:
    return unwrapped(runner.model).method


def _require_between(key: str, values: Sequence[float], low: float, high: float) -> None:
    if not all(low <= number <= high for number in values):
        raise ValueError(
            f"DistillationHook needs {key} between {low:g} and {high:g}, got {values}."
        )
