"""Losses of PyTorch Metric Learning (PML) around another loss: memory and views of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PACKAGE = "pytorch_metric_learning"


class Memory(nn.Module):
    """How far the memory of a CrossBatchMemory is filled, for checkpoints: PML does not save it."""

    filled: Tensor
    stale: bool

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.register_buffer("filled", torch.zeros(2, dtype=torch.int64))
        self.stale = False
        self.register_load_state_dict_post_hook(_set_stale)

    def require_room(self, loss: Any, count: int) -> None:
        """Restore where the memory stands, and refuse a batch that does not fit.

        Raises:
            ValueError: the batch is larger than the memory.
        """
        if self.stale:
            loss.queue_idx, loss.has_been_filled = int(self.filled[0]), bool(self.filled[1])
            self.stale = False
        if count > loss.memory_size:
            raise ValueError(
                f"PML's CrossBatchMemory has memory_size={loss.memory_size}, but the batch has "
                f"{count} examples."
            )

    def note(self, loss: Any) -> None:
        """Note where the memory stands."""
        self.filled[0], self.filled[1] = int(loss.queue_idx), int(loss.has_been_filled)


def _set_stale(module: Any, incompatible: Any) -> None:
    module.stale = True


def is_pml(loss: nn.Module, name: str) -> bool:
    """Whether a loss is of PML's class of that name, or of a subclass."""
    return any(c.__name__ == name and c.__module__.startswith(PACKAGE) for c in type(loss).__mro__)


def of_views(loss: Any, embeddings: Tensor, labels: Tensor, indices: Any) -> Tensor:
    """SelfSupervisedLoss, of views that have a label in common.

    Raises:
        ValueError: a miner, with ``symmetric=False``.
    """
    value: Tensor
    if loss.symmetric:
        value = loss.loss(embeddings, labels, indices)
        return value
    if indices is not None:
        raise ValueError("PML's SelfSupervisedLoss(symmetric=False) takes no miner.")
    seen = labels[:, None] == labels
    anchor = ~seen.tril(-1).any(1)  # no earlier example has its label
    value = loss.loss(
        embeddings[anchor],
        labels[anchor],
        ref_emb=embeddings[~anchor],
        ref_labels=labels[~anchor],
    )
    return value
