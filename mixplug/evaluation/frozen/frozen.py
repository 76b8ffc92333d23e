"""A frozen vision transformer as evaluations use it, and where their results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.evaluation.results import best_device, fingerprint, to_device
from mixplug.models.self_distillation.views import IMAGENET
from mixplug.models.vit import vit_of
from mixplug.models.vit.class_tokens import class_tokens
from mixplug.models.vit.encoder import Encoder, as_encoder
from mixplug.weights.position import Grid


@dataclass(frozen=True)
class Frozen:
    """A network whose weights stay as they are.

    Attributes:
        encoder: the view onto it.
        source: of its weights, and what of them was loaded.
        mean: of the colors that it was trained on, of 0 to 255.
        std: their deviation.
    """

    encoder: Encoder
    source: str
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]

    @classmethod
    def of(
        cls,
        checkpoint: str | Path,
        part: str | None = None,
        heads: int | None = None,
        grid: Grid | None = None,
        device: str | torch.device | None = None,
    ) -> Frozen:
        """The network of a checkpoint, in evaluation mode.

        Args:
            checkpoint: see :func:`mixplug.models.vit.vit_of`; a 'timm:NAME' has colors of its own.
            part: of the checkpoint.
            heads: of the attention, if there is not one per 64 channels.
            grid: (rows, columns) of patches that it was trained on, if no square.
            device: None is a GPU if there is one.

        Raises:
            ValueError: no such device; or see :func:`mixplug.models.vit.vit_of`.
        """
        vit, report = vit_of(checkpoint, part, heads, grid)
        vit = to_device(vit.requires_grad_(False), device or best_device())
        if report is not None:
            return cls(as_encoder(vit), report.line())
        own: Any = getattr(vit, "pretrained_cfg", {})
        colors = [tuple(255 * value for value in own[key]) for key in ("mean", "std") if key in own]
        return cls(as_encoder(vit), str(checkpoint), *colors)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self._backbone.parameters()).device

    @property
    def _backbone(self) -> nn.Module:
        backbone: nn.Module = self.encoder.backbone
        return backbone

    def normalized(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 as the network takes them, on its device."""
        images = images.to(self.device)
        mean, std = (
            images.new_tensor(c, dtype=torch.float32)[:, None, None] for c in (self.mean, self.std)
        )
        return (images.float() - mean).div_(std)

    @torch.no_grad()
    def class_tokens(self, images: Tensor, blocks: int = 1) -> Tensor:
        """(B, blocks D) of images (B, 3, H, W) uint8: :func:`mixplug.models.vit.class_tokens`."""
        return class_tokens(self.encoder, self.normalized(images), blocks)

    def fingerprint(self) -> str:
        """Of all weights, see :func:`fingerprint`."""
        return fingerprint(self._backbone)
