"""A frozen vision transformer for evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.evaluation.results import best_device, fingerprint, to_device
from mixplug.models.self_distillation.views import IMAGENET
from mixplug.models.vit import content_of, images_of, vit_of
from mixplug.models.vit.class_tokens import class_tokens
from mixplug.models.vit.encoder import Encoder, as_encoder
from mixplug.renamed import renamed_attributes
from mixplug.weights.position import Grid
from mixplug.weights.preprocessing import NORMALIZATION, Preprocessing

_DEFAULTS = ("size", "crop", "interpolation")


@renamed_attributes(normalised="normalized")
@dataclass(frozen=True)
class Frozen:
    """A vision transformer with fixed weights.

    Attributes:
        encoder: interface to the network.
        source: origin of the weights, and how much of them was loaded.
        mean: mean of the colors in training, in [0, 255].
        std: standard deviation of the colors.
        images: how images are prepared for the network; None is ``mean`` and ``std`` with the
            defaults of the other fields.
    """

    encoder: Encoder
    source: str
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    images: Preprocessing = None  # type: ignore[assignment]  # set below

    def __post_init__(self) -> None:
        if self.images is None:
            scaled = (tuple(v / 255 for v in values) for values in (self.mean, self.std))
            object.__setattr__(self, "images", Preprocessing(*scaled, guessed=_DEFAULTS))
        else:
            for name in NORMALIZATION:
                values = tuple(255 * value for value in getattr(self.images, name))
                object.__setattr__(self, name, values)

    @classmethod
    def of(
        cls,
        checkpoint: str | Path,
        part: str | None = None,
        heads: int | None = None,
        grid: Grid | None = None,
        device: str | torch.device | None = None,
        model: str | None = None,
        needed: Sequence[str] = NORMALIZATION,
        **images: Any,
    ) -> Frozen:
        """The network of a checkpoint, in evaluation mode.

        Gives a warning if the checkpoint does not say what is ``needed`` to prepare images.

        Args:
            checkpoint: see :func:`mixplug.models.vit.vit_of`.
            part: part of the checkpoint, such as 'teacher'.
            heads: attention heads, if not one per 64 channels.
            grid: (rows, columns) of patches in training, if not a square.
            device: None takes a GPU if there is one.
            model: name of timm's model whose weights these are, if the file does not say it.
            needed: fields of :class:`mixplug.weights.Preprocessing` that the evaluation uses.
            **images: values that replace those of the checkpoint, see
                :meth:`mixplug.weights.Preprocessing.changed`.

        Raises:
            ValueError: the device does not exist; or see :func:`mixplug.models.vit.vit_of`.
        """
        found = content_of(checkpoint)
        vit, report = vit_of(checkpoint, part, heads, grid, model, found)
        own = images_of(vit, checkpoint, part, model, needed, found, **images)
        vit = to_device(vit.requires_grad_(False), device or best_device())
        source = report.line() if report else str(checkpoint)
        return cls(as_encoder(vit), source, images=own)

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
        return self.images.normalized(images.to(self.device))

    @torch.no_grad()
    def class_tokens(self, images: Tensor, blocks: int = 1) -> Tensor:
        """Class tokens (B, blocks · D) of images (B, 3, H, W) uint8.

        See :func:`mixplug.models.vit.class_tokens`.
        """
        return class_tokens(self.encoder, self.normalized(images), blocks)

    def fingerprint(self) -> str:
        """Hash of all weights, see :func:`mixplug.evaluation.results.fingerprint`."""
        return fingerprint(self._backbone)
