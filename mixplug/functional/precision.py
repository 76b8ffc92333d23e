"""Precision in which transport, distances and losses are computed, also under autocast."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_dtype(t: Tensor) -> torch.dtype:
    """float64 for a float64 tensor, and float32 for any other."""
    return torch.float64 if t.dtype == torch.float64 else torch.float32
