"""mm backbone for class activation maps: ``backbone=dict(type='mixplug.VGGGAP')``."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from mixplug.models import vgg_gap
from mixplug.registry import MODELS


@MODELS.register_module()
class VGGGAP(vgg_gap.VGGGAP, BaseModule):
    """Backbone of :class:`mixplug.models.vgg_gap.VGGGAP`; 1024x14x14 on 224x224 images.

    ::

        backbone=dict(
            type='mixplug.VGGGAP',
            init_cfg=dict(type='Pretrained', checkpoint='torchvision://vgg16'))

    Weights of ImageNet are named as torchvision's; of its ``classifier`` nothing is loaded, and
    ``conv6`` is new. AlignMixup aligns the map before ``conv6``: ``features='backbone.features'``.

    Args:
        width: channels of the last map.
        init_cfg: mmengine's weight initialisation; None keeps He's.
    """

    def __init__(self, width: int = 1024, init_cfg: Any = None) -> None:
        super().__init__(width)
        # Set afterwards: the network does not know mmengine and hands no arguments on.
        self.init_cfg = copy.deepcopy(init_cfg)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Map images (B, 3, H, W) to a tuple of the last map (B, width, h, w)."""
        return (self.forward_features(x),)
