"""The small-image networks as mm backbones: ``backbone=dict(type='mixplug.PreActResNet')``.

Weights are named as in :mod:`mixplug.models`, so a checkpoint of the timm model loads here once
``fc.*`` is dropped, and the other way round once the prefix ``backbone.`` is.
"""

from __future__ import annotations

import copy
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from mixplug.models.preact import PreActTrunk, TrunkSpec
from mixplug.models.preact_resnet import preact_resnet_spec
from mixplug.models.wide_resnet import wide_resnet_spec
from mixplug.registry import MODELS


class _Backbone(PreActTrunk, BaseModule):
    """A trunk with mmengine's ``init_cfg``."""

    def __init__(
        self, spec: TrunkSpec, in_channels: int, stem_stride: int, last_stride: int, init_cfg: Any
    ) -> None:
        super().__init__(spec, in_channels, stem_stride, last_stride)
        # Set afterwards: the trunk does not know mmengine and hands no arguments on.
        self.init_cfg = copy.deepcopy(init_cfg)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Map images (B, in_channels, H, W) to a tuple of the last map A (B, C, h, w)."""
        return (self.forward_features(x),)


@MODELS.register_module()
class PreActResNet(_Backbone):
    """Backbone of :class:`mixplug.models.PreActResNet`; 512x4x4 on 32x32 images.

    Args:
        depth: 18.
        in_channels: channels of the image.
        stem_stride: 1, or 2 for 64x64 images.
        last_stride: 2, or 1 for a map of twice the side.
        init_cfg: mmengine's weight initialisation; None keeps He's.
    """

    def __init__(
        self,
        depth: int = 18,
        in_channels: int = 3,
        stem_stride: int = 1,
        last_stride: int = 2,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(preact_resnet_spec(depth), in_channels, stem_stride, last_stride, init_cfg)


@MODELS.register_module()
class WideResNet(_Backbone):
    """Backbone of :class:`mixplug.models.WideResNet`; 512x8x8 on 32x32 images.

    Args:
        depth: 10, 16, 22, 28 or 40.
        widen_factor: multiple of the widths (16, 32, 64).
        in_channels: channels of the image.
        stem_stride: 1, or 2 for 64x64 images.
        last_stride: 2, or 1 for a map of twice the side.
        init_cfg: mmengine's weight initialisation; None keeps He's.
    """

    def __init__(
        self,
        depth: int = 16,
        widen_factor: int = 8,
        in_channels: int = 3,
        stem_stride: int = 1,
        last_stride: int = 2,
        init_cfg: Any = None,
    ) -> None:
        spec = wide_resnet_spec(depth, widen_factor)
        super().__init__(spec, in_channels, stem_stride, last_stride, init_cfg)
