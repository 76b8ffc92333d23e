"""Backbones for mm configs: networks of mixplug for small images, and any model of timm.

``backbone=dict(type='mixplug.PreActResNet')``. The small networks have the same names of weights as
in :mod:`mixplug.models`. A checkpoint of such a timm model loads here after ``fc.*`` is removed; a
checkpoint of mmpretrain loads there after the prefix ``backbone.`` is removed.
"""

from __future__ import annotations

import copy
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mixplug.hosts.mm.models.pretrained import with_own_pretrained
from mixplug.models.small import vgg_gap
from mixplug.models.small.preact import PreActTrunk, TrunkSpec
from mixplug.models.small.preact_resnet import preact_resnet_spec
from mixplug.models.small.wide_resnet import wide_resnet_spec
from mixplug.registry import MODELS
from mixplug.weights.timm_names import timm_with


class _Backbone(PreActTrunk, BaseModule):
    """A trunk with mmengine's ``init_cfg``."""

    listed_as = "backbone"

    def __init__(
        self, spec: TrunkSpec, in_channels: int, stem_stride: int, last_stride: int, init_cfg: Any
    ) -> None:
        super().__init__(spec, in_channels, stem_stride, last_stride)
        # Set here, because the trunk does not know mmengine and passes no arguments on.
        self.init_cfg = with_own_pretrained(init_cfg, type(self).__name__)
        self.num_features = spec.widths[-1]

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Map images (B, in_channels, H, W) to a tuple of the last map A (B, C, h, w)."""
        return (self.forward_features(x),)


@MODELS.register_module()
class PreActResNet(_Backbone):
    """The backbone of PreActResNet-18, for small images: 512x4x4 maps of 32x32 images.

    Args:
        depth: number of layers; only 18 is there.
        in_channels: channels of the image.
        stem_stride: 1, or 2 for 64x64 images.
        last_stride: 2, or 1 for a map of twice the side.
        init_cfg: mmengine's weight initialization, where 'Pretrained' is mixplug's own; None keeps
            He's.
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
    """The backbone of a Wide ResNet, for small images: 512x8x8 maps of 32x32 images.

    Args:
        depth: 10, 16, 22, 28 or 40.
        widen_factor: multiple of the widths (16, 32, 64).
        in_channels: channels of the image.
        stem_stride: 1, or 2 for 64x64 images.
        last_stride: 2, or 1 for a map of twice the side.
        init_cfg: mmengine's weight initialization, where 'Pretrained' is mixplug's own; None keeps
            He's.
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


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A model of timm without its head: ``backbone=dict(type='mixplug.TimmBackbone', ...)``.

    It returns the last feature map with channels first, for every kind of model: maps of CNNs,
    channels-last maps as in Swin, and patch tokens of ViTs without class and register tokens.

    Args:
        model_name: name of a model, as for ``timm.create_model``, such as 'resnet50.a1_in1k'. For
            'hf-hub:NAME' timm downloads the config of the model.
        pretrained: whether weights are downloaded; if False nothing is downloaded.
        init_cfg: mmengine's weight initialization, where 'Pretrained' is mixplug's own; None keeps
            timm's.
        **options: further keys of the model, such as ``img_size``.

    Attributes:
        num_features: C, number of channels of the map.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model; the message names the nearest.
    """

    listed_as = "backbone"

    def __init__(
        self, model_name: str, pretrained: bool = False, init_cfg: Any = None, **options: Any
    ) -> None:
        timm = timm_with(model_name, "timm", "TimmBackbone")
        from mixplug.hosts.timm.stages import map_layout

        super().__init__(with_own_pretrained(init_cfg, "TimmBackbone"))
        self.model = timm.create_model(model_name, pretrained=pretrained, num_classes=0, **options)
        _drop_head(self.model)
        self.model.is_init = True  # or mmengine calls init_weights of a ViT over loaded weights
        self.num_features: int = self.model.num_features
        self.layout = map_layout(self.model)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Map images (B, 3, H, W) to a tuple of the last map A (B, C, h, w)."""
        return (self.layout.map(self.model.forward_features(x)),)


def _drop_head(model: nn.Module) -> None:
    """Remove layers after the map: DDP would wait for gradients of their parameters."""
    if hasattr(model, "prune_intermediate_layers"):
        model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
    else:
        model.reset_classifier(0, "")


@MODELS.register_module()
class VGGGAP(vgg_gap.VGGGAP, BaseModule):
    """VGG-16 with a convolution in place of its classifier: 1024x14x14 maps of 224x224 images.

    ::

        backbone=dict(
            type='mixplug.VGGGAP',
            init_cfg=dict(type='Pretrained', checkpoint='torchvision://vgg16'))

    Weights have the names of torchvision's VGG-16, so its ImageNet weights load, without
    ``classifier``; ``conv6`` is initialized. AlignMixup aligns the map before ``conv6``:
    ``features='backbone.features'``.

    Args:
        width: channels of the last map.
        init_cfg: mmengine's weight initialization; None keeps He's.
    """

    listed_as = "backbone"

    def __init__(self, width: int = 1024, init_cfg: Any = None) -> None:
        super().__init__(width)
        # Set here, because the network does not know mmengine and passes no arguments on.
        self.init_cfg = copy.deepcopy(init_cfg)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Map images (B, 3, H, W) to a tuple of the last map (B, width, h, w)."""
        return (self.forward_features(x),)
