"""How much memory a search takes, and how much there is."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path

import torch

BLOCK = 4096  # queries at a time, which faiss takes at a time itself
_SCRATCH = 1 << 29  # bytes that either backend has in flight, at most


def memory_estimate(queries: int, gallery: int, width: int, k: int) -> int:
    """Bytes that a search takes beyond the embeddings: index, results, and what is in flight.

    The graph of 'hnsw' comes on top, some 300 bytes per item.

    Args:
        queries: Q.
        gallery: N.
        width: D.
        k: neighbors per query.
    """
    return 4 * (gallery + queries) * width + 12 * queries * k + _SCRATCH + 48 * BLOCK * k


def warn_of_memory(queries: int, gallery: int, width: int, k: int, device: torch.device) -> None:
    """Warn if less than :func:`memory_estimate` is free on the device that is searched on."""
    need, free = memory_estimate(queries, gallery, width, k), _free_bytes(device)
    if free is not None and need > free:
        warnings.warn(
            f"This search takes about {need / 2**30:.1f} GiB beyond the embeddings, and "
            f"{free / 2**30:.1f} GiB are free: search fewer queries at a time, or a smaller k.",
            stacklevel=3,  # to who calls Index.search
        )


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of a device; None where the system does not say."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept  # which training leaves to whoever asks
    with contextlib.suppress(OSError, StopIteration):  # what caches would give back counts as free
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1])
    if device.type != "cpu" or "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
