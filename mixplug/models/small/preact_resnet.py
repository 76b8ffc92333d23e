"""Pre-activation ResNet for small images (R-18 in chapters 3 and 5)."""

from __future__ import annotations

from typing import Any

from mixplug.models.small.preact import PreActNet, TrunkSpec

# Depth to blocks per stage. The depth counts the stem, two convolutions per block and the
# classifier.
BLOCKS = {18: (2, 2, 2, 2)}


def preact_resnet_spec(depth: int = 18) -> TrunkSpec:
    """Trunk of a given depth; ValueError if the depth is not allowed."""
    if depth not in BLOCKS:
        raise ValueError(f"PreActResNet needs a depth in {sorted(BLOCKS)}, got {depth!r}.")
    return TrunkSpec(stem=64, widths=(64, 128, 256, 512), blocks=BLOCKS[depth])


class PreActResNet(PreActNet):
    """Pre-activation ResNet with a 3x3 stem [0].

    For 32x32 images, A is 512x4x4, or 512x8x8 with ``last_stride=1`` (the 8x8 row of the ablation
    of the alignment resolution, Table 3.8). For 64x64 images (TinyImageNet), A is 512x4x4 with
    ``stem_stride=2``. The norm and ReLU of the first block are inside its residual branch, so all
    shortcuts of stage 1 are identities. The appendix of [0] moves them before the split.

    Args:
        depth: number of layers, 18.
        **options: num_classes, in_chans, stem_stride, last_stride, drop_rate and global_pool of
            :class:`mixplug.models.small.preact.PreActNet`.

    - [0]: Identity Mappings in Deep Residual Networks, 2016, https://arxiv.org/abs/1603.05027
    """

    def __init__(self, depth: int = 18, **options: Any) -> None:
        super().__init__(preact_resnet_spec(depth), **options)


def preact_resnet18(
    num_classes: int = 10,
    in_chans: int = 3,
    stem_stride: int = 1,
    last_stride: int = 2,
    drop_rate: float = 0.0,
    **options: Any,
) -> PreActResNet:
    """PreActResNet-18: (B, in_chans, 32, 32) to (B, num_classes); A is 512x4x4."""
    return PreActResNet(
        depth=18,
        num_classes=num_classes,
        in_chans=in_chans,
        stem_stride=stem_stride,
        last_stride=last_stride,
        drop_rate=drop_rate,
        **options,
    )
