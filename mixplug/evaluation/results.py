"""Helpers of all evaluations: progress, device, fingerprints of networks, and result files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

Tick = Callable[[int, int, str], None]  # progress callback: done, total, description


def no_progress(done: int, total: int, what: str) -> None:
    """Progress callback that shows nothing."""


def fingerprint(network: nn.Module) -> str:
    """Hash of all weights. Networks of one architecture with the same hash give the same output."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().tobytes())  # as bytes, because numpy has no bfloat16
    return digest.hexdigest()[:16]


def to_device(network: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a network to a device.

    Raises:
        ValueError: the device does not exist.
    """
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:  # raised by torch if there is no such device
        raise ValueError(f"The network cannot be moved to {device}: {error}") from error


def best_device() -> str:
    """Name of the GPU if there is one, else 'cpu'."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def write_results(out: Path, name: str, results: Mapping[str, Any]) -> Path:
    """Write results as OUT/NAME.json.

    Raises:
        ValueError: the folder cannot be created or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{name}.json"
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"Results cannot be written to {out}: {error}") from error
    return path
