"""VGG-GAP: VGG-16 for class activation maps."""

from __future__ import annotations

from torch import Tensor, nn

# Widths of the convolutions between poolings. Without the last pooling, the map of a 224 x 224
# image is 14 x 14.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGGGAP(nn.Module):
    """Feature maps of VGG-GAP [0] (§3.4.2), for average pooling and a linear classifier.

    VGG-GAP is VGG-16 with a 3 x 3 convolution ``conv6`` in place of the last pooling and the
    fully-connected layers. All other layers are named as in torchvision's vgg16, from
    ``features.0.weight`` to ``features.28.bias``, so the weights of vgg16 load.

    Args:
        width: number of channels of the last map.

    - [0]: Learning Deep Features for Discriminative Localization, 2016,
      https://arxiv.org/abs/1512.04150
    """

    def __init__(self, width: int = 1024) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for number, stage in enumerate(_STAGES):
            if number:
                layers.append(nn.MaxPool2d(2))
            for out in stage:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
                channels = out
        self.features = nn.Sequential(*layers)
        self.conv6 = nn.Conv2d(channels, width, 3, padding=1)
        self.num_features = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to (B, width, H // 16, W // 16)."""
        # not in place: a mixer may have stored the output of conv6
        return self.conv6(self.features(x)).relu()
