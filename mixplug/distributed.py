"""What a process must know of its peers."""

from __future__ import annotations

import torch
import torch.distributed as dist


def rank() -> int:
    """Rank of this process, 0 when alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def shared_seed() -> int:
    """One seed for all ranks: PyTorch's initial seed on rank 0."""
    seed = [torch.initial_seed()]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast_object_list(seed, src=0)
    return seed[0]
