"""Access to faiss: import, number of threads, and a self-test on the GPU."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mixplug.optional import optional

_SELF_TEST = """
import faiss, numpy
angle = numpy.arange(512) * (2 * numpy.pi / 512)
circle = numpy.stack([numpy.cos(angle), numpy.sin(angle)] * 16, 1).astype("float32")
index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss.IndexFlatL2(32))
index.add(circle)
found = index.search(circle, 3)[1]
known = (numpy.arange(512)[:, None] + [-1, 0, 1]) % 512
assert (numpy.sort(found, 1) == numpy.sort(known, 1)).all(), found
"""


def load_faiss() -> ModuleType:
    """Import faiss.

    Raises:
        ImportError: faiss is not installed; the message has the command that installs it.
    """
    return optional("faiss", "metric", "The search backend 'faiss'")


def has_faiss() -> bool:
    """Whether faiss is installed."""
    with contextlib.suppress(ImportError):
        return bool(load_faiss())
    return False


@contextlib.contextmanager
def threads(faiss: ModuleType) -> Iterator[None]:
    """Let faiss, which has its own OpenMP, use as many threads as PyTorch within the context."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def array(t: Tensor) -> Any:
    """Convert a tensor to a contiguous NumPy array on the CPU."""
    return t.cpu().contiguous().numpy()


@functools.cache
def gpu_faiss_works() -> bool:
    """Whether faiss finds known neighbors on a GPU. The test runs once per process.

    The test runs in a subprocess, because faiss aborts the process if its wheel has no kernels for
    the GPU.
    """
    if not has_faiss() or not hasattr(load_faiss(), "StandardGpuResources"):
        return False
    if not load_faiss().get_num_gpus():
        return False
    command = [sys.executable, "-c", _SELF_TEST]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        reason = run.stderr.strip()[-300:] or f"exit status {run.returncode}"
    except subprocess.TimeoutExpired:
        run, reason = None, "no result within 120 s"
    if run is not None and run.returncode == 0:
        return True
    warnings.warn(
        f"faiss failed its self-test on the GPU, so it is not used there: {reason}", stacklevel=2
    )
    return False
