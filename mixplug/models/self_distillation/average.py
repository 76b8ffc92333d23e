"""Averages over training: of a network over steps, and of logits over batches and processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mixplug.functional.distill import updated_center
from mixplug.renamed import renamed_attributes


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """``teacher <- decay teacher + (1 - decay) student``, in place; buffers are copied.

    Tensors are matched by name. What only the student has, such as a mask token, is left out.

    Args:
        teacher: an earlier copy of the student.
        student: the network that is trained.
        decay: in [0, 1], the weight of the old value.
    """
    trained = dict(student.named_parameters())
    named = dict(teacher.named_parameters())
    old: list[Tensor] = [*named.values()]
    new: list[Tensor] = [trained[name] for name in named]
    torch._foreach_lerp_(old, new, 1 - decay)
    buffers = dict(student.named_buffers())
    for name, buffer in teacher.named_buffers():
        buffer.copy_(buffers[name])


@renamed_attributes(move="update")
class RunningSum:
    """Sum of rows over the batches between two optimizer steps, on the device of the rows.

    It is not a buffer: the sums differ from process to process, and DDP would overwrite buffers
    with those of the first process.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Add rows (B, K), float32 or float64."""
        total = rows.sum(0)
        self.total = total if self.total is None else self.total + total
        self.count += len(rows)

    @torch.no_grad()
    def update(self, center: Tensor, decay: float) -> None:
        """Move a center (K,) in place towards the mean over all processes, and start again.

        All processes must call it. If no process has added rows, the center stays.
        """
        together = torch.zeros(len(center) + 1, dtype=center.dtype, device=center.device)
        if self.total is not None:
            together[:-1] = self.total
            together[-1].fill_(self.count)  # an assignment would wait for the device
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(together)
        mean, count = together[:-1] / together[-1].clamp(min=1), together[-1]
        center.copy_(torch.where(count > 0, updated_center(center, mean, decay), center))
        self.total, self.count = None, 0
