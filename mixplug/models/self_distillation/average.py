"""Averages over training: a student's parameters over steps, logits over batches and processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mixplug.functional.distill import updated_center


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """``teacher <- decay teacher + (1 - decay) student``, in place; buffers are copied.

    Args:
        teacher: a copy of the student at some time.
        student: what is followed.
        decay: in [0, 1], the weight of the old value.
    """
    old: list[Tensor] = [*teacher.parameters()]
    new: list[Tensor] = [*student.parameters()]
    torch._foreach_lerp_(old, new, 1 - decay)
    for mine, other in zip(teacher.buffers(), student.buffers(), strict=True):
        mine.copy_(other)


class RunningSum:
    """Sum of rows over the batches between two steps, on the device that they are on.

    No buffer: what is seen between steps differs from process to process, and DDP would overwrite
    it with that of the first one.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Take in rows (B, K), float32 or float64."""
        total = rows.sum(0)
        self.total = total if self.total is None else self.total + total
        self.count += len(rows)

    @torch.no_grad()
    def move(self, center: Tensor, decay: float) -> None:
        """Update a center (K,) in place with the mean over all processes, and start anew.

        All processes must call it. Without any row the center stays.
        """
        together = torch.zeros(len(center) + 1, dtype=center.dtype, device=center.device)
        if self.total is not None:
            together[:-1] = self.total
            together[-1].fill_(self.count)  # assigned, it would wait for the device
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(together)
        mean, count = together[:-1] / together[-1].clamp(min=1), together[-1]
        center.copy_(torch.where(count > 0, updated_center(center, mean, decay), center))
        self.total, self.count = None, 0
