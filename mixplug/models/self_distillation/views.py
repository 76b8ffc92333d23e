"""The input of self-distillation: augmented clips.

Letters: B clips, T frames, m small views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # mean and deviation of R, G, B


@dataclass(frozen=True)
class Views:
    """Augmented clips, normalized.

    Attributes:
        large: two views of every clip, (2, B, T, 3, H, W).
        small: m local crops, (m, B, T, 3, h, w), or None.
    """

    large: Tensor
    small: Tensor | None = None

    @classmethod
    def of(cls, batch: Mapping[str, Tensor], device: torch.device | str | None = None) -> Views:
        """Normalized views of a stacked batch of :class:`mixplug.data.clips.VideoClips`.

        Args:
            batch: ``large`` (B, 2, T, 3, H, W) and optionally ``small`` (B, m, T, 3, h, w), uint8.
            device: to which the bytes are moved before they become floats; None does not move them.
        """
        views = {name: batch[name].to(device).transpose(0, 1) for name in ("large", "small")
                 if name in batch}  # fmt: skip
        return cls(**{name: normalized(view) for name, view in views.items()})


def normalized(images: Tensor) -> Tensor:
    """Images (..., 3, H, W) uint8 to float32, normalized by the mean and deviation of ImageNet."""
    mean, std = (images.new_tensor(c, dtype=torch.float32)[:, None, None] for c in IMAGENET)
    return (images.float() - mean).div_(std)
