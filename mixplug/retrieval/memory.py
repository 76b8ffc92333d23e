"""Estimate of the memory that a search needs, and a warning if less is free."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path

import torch

BLOCK = 4096  # queries per block, the block size of faiss
_SCRATCH = 1 << 29  # upper bound of the temporary bytes of both backends


def memory_estimate(queries: int, gallery: int, width: int, k: int) -> int:
    """Memory in bytes that a search needs in addition to the embeddings.

    It counts the index, the results and temporary tensors. The graph of an 'hnsw' index is not
    counted; it takes about 300 bytes per item.

    Args:
        queries: number Q of queries.
        gallery: number N of gallery items.
        width: width D of the embeddings.
        k: number of neighbors per query.
    """
    return 4 * (gallery + queries) * width + 12 * queries * k + _SCRATCH + 48 * BLOCK * k


def warn_of_memory(queries: int, gallery: int, width: int, k: int, device: torch.device) -> None:
    """Warn if the device has less free memory than :func:`memory_estimate`."""
    need, free = memory_estimate(queries, gallery, width, k), _free_bytes(device)
    if free is not None and need > free:
        warnings.warn(
            f"This search needs about {need / 2**30:.1f} GiB in addition to the embeddings, but "
            f"only {free / 2**30:.1f} GiB are free. Search fewer queries at a time, or use a "
            f"smaller k.",
            stacklevel=3,  # the caller of Index.search
        )


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of a device in bytes; None if it is unknown."""
    if device.type == "cuda":
        # Memory that PyTorch has reserved but not allocated is free for the search.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    with contextlib.suppress(OSError, StopIteration):  # MemAvailable includes reclaimable caches
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1])
    if device.type != "cpu" or "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
