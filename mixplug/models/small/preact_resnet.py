"""Pre-activation ResNet for small images (R-18 in the tables of AlignMixup and MultiMix)."""

from __future__ import annotations

from typing import Any

from mixplug.models.small.preact import PreActNet, TrunkSpec

# depth -> blocks per stage; depth counts the stem, two convolutions per block and the classifier.
BLOCKS = {18: (2, 2, 2, 2)}


def preact_resnet_spec(depth: int = 18) -> TrunkSpec:
    """Look up the trunk of a depth; ValueError names the depths there are."""
    if depth not in BLOCKS:
        raise ValueError(
            f"PreActResNet has no depth {depth!r}: allowed depths are {sorted(BLOCKS)}."
        )
    return TrunkSpec(stem=64, widths=(64, 128, 256, 512), blocks=BLOCKS[depth])


class PreActResNet(PreActNet):
    """Residual network of identity mappings with a 3x3 stem [0].

    32x32 images give A of 512x4x4, or of 512x8x8 with ``last_stride=1`` (the 8x8 row of the
    alignment-resolution ablation, AlignMixup Table 3.8). 64x64 images (TinyImageNet) give 4x4 with
    ``stem_stride=2``. The first block's norm and ReLU stay inside its branch, so that stage 1 is
    made of identity mappings throughout; [0], appendix, moves them before the split.

    Args:
        depth: 18.
        **options: as for :class:`mixplug.models.small.preact.PreActNet`: num_classes, in_chans,
            stem_stride, last_stride, drop_rate, global_pool.

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
    """Build the 18-layer network: (B, in_chans, 32, 32) to (B, num_classes), A of 512x4x4."""
    return PreActResNet(
        depth=18,
        num_classes=num_classes,
        in_chans=in_chans,
        stem_stride=stem_stride,
        last_stride=last_stride,
        drop_rate=drop_rate,
        **options,
    )
