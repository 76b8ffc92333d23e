"""What evaluations share: progress, device, fingerprints of networks, and result files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

Tick = Callable[[int, int, str], None]  # how much is done, of how much, and what


def unseen(done: int, total: int, what: str) -> None:
    """Nobody looks at the progress."""


def fingerprint(network: nn.Module) -> str:
    """Of all weights: two networks of one kind with the same one give the same features."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().tobytes())  # by bytes, since numpy has no bfloat16
    return digest.hexdigest()[:16]


def to_device(network: nn.Module, device: str | torch.device) -> nn.Module:
    """A network on a device.

    Raises:
        ValueError: there is no such device.
    """
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:  # torch's, of a device that is not there
        raise ValueError(f"The network cannot be put on {device}: {error}") from error


def best_device() -> str:
    """A GPU if torch has one, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def write_results(out: Path, name: str, results: Mapping[str, Any]) -> Path:
    """Write results as OUT/NAME.json.

    Raises:
        ValueError: the folder cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{name}.json"
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"Results cannot be written to {out}: {error}") from error
    return path
