"""A frozen vision transformer for evaluations."""

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
from mixplug.renamed import renamed_attributes
from mixplug.weights.position import Grid


@renamed_attributes(normalised="normalized")
@dataclass(frozen=True)
class Frozen:
    """A vision transformer with fixed weights.

    Attributes:
        encoder: interface to the network.
        source: origin of the weights, and how much of them was loaded.
        mean: mean of the colors in training, in [0, 255].
        std: standard deviation of the colors.
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
            checkpoint: see :func:`mixplug.models.vit.vit_of`. For 'timm:NAME', mean and std come
                from timm.
            part: part of the checkpoint, such as 'teacher'.
            heads: attention heads, if not one per 64 channels.
            grid: (rows, columns) of patches in training, if not a square.
            device: None takes a GPU if there is one.

        Raises:
            ValueError: the device does not exist; or see :func:`mixplug.models.vit.vit_of`.
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
        """Device of the network."""
        return next(self._backbone.parameters()).device

    @property
    def _backbone(self) -> nn.Module:
        backbone: nn.Module = self.encoder.backbone
        return backbone

    def normalized(self, images: Tensor) -> Tensor:
        """Normalize images (B, 3, H, W) uint8 on the device of the network."""
        images = images.to(self.device)
        mean, std = (
            images.new_tensor(c, dtype=torch.float32)[:, None, None] for c in (self.mean, self.std)
        )
        return (images.float() - mean).div_(std)

    @torch.no_grad()
    def class_tokens(self, images: Tensor, blocks: int = 1) -> Tensor:
        """Class tokens (B, blocks · D) of images (B, 3, H, W) uint8.

        See :func:`mixplug.models.vit.class_tokens`.
        """
        return class_tokens(self.encoder, self.normalized(images), blocks)

    def fingerprint(self) -> str:
        """Hash of all weights, see :func:`mixplug.evaluation.results.fingerprint`."""
        return fingerprint(self._backbone)
