"""Backbone of linear probes: ``backbone=dict(type='mixplug.ClassTokens', ...)``."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mixplug.hosts.mm.models.pretrained import with_own_pretrained
from mixplug.models.vit.class_tokens import class_tokens, require_blocks
from mixplug.models.vit.encoder import as_encoder, build_timm_vit
from mixplug.registry import MODELS


@MODELS.register_module()
class ClassTokens(BaseModule):
    """Class tokens of a frozen ViT of timm, the input of mmpretrain's LinearClsHead (6.5.3).

    ::

        model = dict(
            type='ImageClassifier',
            backbone=dict(
                type='mixplug.ClassTokens', model_name='vit_small_patch16_224', blocks=4,
                init_cfg=dict(type='mixplug.Pretrained', checkpoint='dora.pth', part='teacher')),
            head=dict(type='LinearClsHead', in_channels=4 * 384, num_classes=1000))

    The ViT stays in evaluation mode and gets no gradients.

    Args:
        model_name: name of a model, as for ``timm.create_model``.
        blocks: number of last blocks whose class tokens are concatenated: as in DINO, 4 for ViT-S
            and 1 for ViT-B.
        init_cfg: mmengine's weight initialization, where 'Pretrained' is mixplug's own.
        **options: of timm's model, such as ``img_size``.

    Attributes:
        num_features: blocks D, the number of input channels of the head.

    Raises:
        ImportError: timm is not installed.
        ValueError: the model has fewer blocks; or see :func:`mixplug.models.vit.build_timm_vit`.
    """

    listed_as = "backbone"

    def __init__(
        self,
        model_name: str = "vit_small_patch16_224",
        blocks: int = 4,
        init_cfg: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(with_own_pretrained(init_cfg, "ClassTokens"))
        self.model: Any = build_timm_vit(model_name, **options).eval().requires_grad_(False)
        self.model.is_init = True  # or mmengine runs timm's init_weights over loaded weights
        require_blocks(as_encoder(self.model), blocks)
        self.blocks = blocks
        self.num_features: int = blocks * self.model.embed_dim

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Images (B, 3, H, W) to a tuple of (B, blocks D)."""
        return (class_tokens(as_encoder(self.model), x, self.blocks),)

    def train(self, mode: bool = True) -> ClassTokens:
        """Set the training mode of the module; the ViT stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self
