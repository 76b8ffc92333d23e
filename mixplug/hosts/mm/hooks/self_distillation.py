"""mmengine: the numbers that self-distillation changes while it trains, and its alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixplug.hosts.mm.hooks.mixup import unwrapped
from mixplug.models.self_distillation.schedules import cosine
from mixplug.registry import HOOKS

_COLLAPSED = 0.02  # of ln K, from either end of the teacher's entropy


@HOOKS.register_module()
class DistillationHook(Hook):
    """Sets the numbers of a step, ties teacher and center to the optimizer, and watches the loss.

    A Runner with such a model has this hook by itself: without it the teacher would never move.

    Args:
        ema_decay: α of the teacher at the first and the last step, on a cosine in between.
        teacher_temperature: τ_t at the first step and after the warm-up, on a line in between.
        warmup_temperature_epochs: how long that warm-up is.
        freeze_last_layer_epochs: how long the head's last layer is left as it is.

    Raises:
        ValueError: a decay outside [0, 1], a temperature that is not positive, negative epochs.
    """

    priority = "NORMAL"

    def __init__(
        self,
        ema_decay: tuple[float, float] = (0.996, 1.0),
        teacher_temperature: tuple[float, float] = (0.04, 0.04),
        warmup_temperature_epochs: float = 0,
        freeze_last_layer_epochs: float = 1,
    ) -> None:
        for name, value, low, high in (
            ("ema_decay", ema_decay, 0.0, 1.0),
            ("teacher_temperature", teacher_temperature, 1e-6, math.inf),
            ("warmup_temperature_epochs", (warmup_temperature_epochs,), 0, math.inf),
            ("freeze_last_layer_epochs", (freeze_last_layer_epochs,), 0, math.inf),
        ):
            if not all(low <= number <= high for number in value):
                raise ValueError(
                    f"DistillationHook needs {name} between {low:g} and {high:g}, got {value}."
                )
        self.ema_decay, self.teacher_temperature = ema_decay, teacher_temperature
        self.warmup_temperature_epochs = warmup_temperature_epochs
        self.freeze_last_layer_epochs = freeze_last_layer_epochs
        self._written: str | None = None  # mmengine names one before it is written

    def before_train(self, runner: Runner) -> None:
        """Tie the method to the optimizer, once."""
        _method(runner).attach(runner.optim_wrapper.optimizer)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the numbers of this step."""
        method, step = _method(runner), runner.iter
        epoch = step / max(1, len(runner.train_dataloader))
        start, end = self.teacher_temperature
        part = min(1.0, epoch / (self.warmup_temperature_epochs or 1e-9))
        method.teacher_temperature = start + part * (end - start)
        method.ema_decay = cosine(*self.ema_decay, runner.max_iters)(step)
        method.freeze_last_layer = epoch < self.freeze_last_layer_epochs

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop at a loss that is not finite, before a checkpoint is written of what it left.

        Raises:
            FloatingPointError: with the term, the iteration and the last checkpoint.
        """
        self._written = runner.message_hub.get_info("last_ckpt")
        terms = {key: value for key, value in (outputs or {}).items() if "loss" in key}
        self._require_finite(terms, runner.iter + 1)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Write none that is not finite: a gradient can be so where the loss is not.

        Raises:
            FloatingPointError: with the tensor, the iteration and the last checkpoint.
        """
        self._require_finite(checkpoint["state_dict"], checkpoint["meta"]["iter"])

    def after_train_epoch(self, runner: Runner) -> None:
        """Warn where the teacher says the same of everything."""
        means = runner.message_hub.get_scalar("train/teacher_entropy")
        entropy = means.mean(len(runner.train_dataloader))
        share = entropy / math.log(_method(runner).student.head.out_dim)
        if not _COLLAPSED < share < 1 - _COLLAPSED:
            where = "one output" if share <= _COLLAPSED else "all outputs alike"
            runner.logger.warning(
                f"The teacher has collapsed to {where}: its entropy is {entropy:.3f}, {share:.0%} "
                f"of ln K. A lower teacher_temperature works against equal outputs, a higher one "
                f"or a faster center against a single one."
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
    model = unwrapped(runner.model)
    return model.method
