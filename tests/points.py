"""Points that tests of search share."""

from __future__ import annotations

import torch
from torch import Tensor


def grid(count: int, width: int = 3) -> Tensor:
    """Coordinates -1, 0, 1, never all 0: products are exact and most distances are equal."""
    points = torch.randint(-1, 2, (count, width)).float()
    points[:, 0] += (points == 0).all(1)
    return points
