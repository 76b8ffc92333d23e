"""In which precision transport, distances and losses run, whatever autocast says."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_dtype(t: Tensor) -> torch.dtype:
    """float64 if ``t`` is, else float32."""
    return torch.float64 if t.dtype == torch.float64 else torch.float32
