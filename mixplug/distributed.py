"""Rank and shared seed under distributed training."""

from __future__ import annotations

import torch
import torch.distributed as dist


def rank() -> int:
    """Rank of this process; 0 without distributed training."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def shared_seed() -> int:
    """A seed that is the same on all ranks: PyTorch's initial seed on rank 0."""
    seed = [torch.initial_seed()]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast_object_list(seed, src=0)
    return seed[0]


def world() -> int:
    """Number of processes; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
