"""How the host normalized the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Statistic = float | Sequence[float] | Tensor
Pixels = tuple[Statistic, Statistic]


class Normalization:
    """Mean and standard deviation by which the host normalized x, once they are known.

    Args:
        source: (mean, std), one number or one per channel, for images in [0, 1]; or a function that
            gives them when they are first needed, or None as long as they are not known.
    """

    def __init__(self, source: Pixels | Callable[[], Pixels | None] | None) -> None:
        self._source = source
        self._known: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation on a device, (C, 1, 1) each.

        Raises:
            ValueError: they are not known, or a standard deviation is not positive.
        """
        if device not in self._known:
            self._known[device] = tuple(part.to(device) for part in self._read())  # type: ignore[assignment]
        return self._known[device]

    def _read(self) -> tuple[Tensor, Tensor]:
        given = self._source() if callable(self._source) else self._source
        if given is None:
            raise ValueError(
                "It is not known how the images were normalized. Say so with "
                "Stages(..., pixels=(mean, std)), for images in [0, 1]; in timm with "
                "timm_stages(model, pixels=(mean, std)), which timm_hooks.train does for loaders "
                "made by timm.data.create_loader."
            )
        mean, std = (torch.as_tensor(part, dtype=torch.float32).reshape(-1, 1, 1) for part in given)
        if not bool((std > 0).all()):
            raise ValueError(f"pixels needs a positive standard deviation, got {given[1]}.")
        return mean, std
