"""Wide residual network for small images (W16-8 in chapters 3 and 5)."""

from __future__ import annotations

from typing import Any

from mixplug.models.small.preact import PreActNet, TrunkSpec

# depth = 6n + 4: three stages of n blocks with two convolutions each, a stem and three projections.
DEPTHS = (10, 16, 22, 28, 40)


def wide_resnet_spec(depth: int = 16, widen_factor: int = 8) -> TrunkSpec:
    """Trunk of a given depth and widening factor; ValueError if they are not allowed."""
    if depth not in DEPTHS:
        raise ValueError(f"WideResNet needs a depth in {list(DEPTHS)}, got {depth!r}.")
    if widen_factor < 1:
        raise ValueError(f"widen_factor must be an integer >= 1, got {widen_factor!r}.")
    widths = (16 * widen_factor, 32 * widen_factor, 64 * widen_factor)
    return TrunkSpec(stem=16, widths=widths, blocks=((depth - 4) // 6,) * 3)


class WideResNet(PreActNet):
    """Wide ResNet [0]: three pre-activation stages of widths (16, 32, 64) times a factor.

    For 32x32 images and ``widen_factor=8``, A is 512x8x8, or 512x16x16 with ``last_stride=1``.
    Dropout inside blocks, an option of [0], is not implemented; [0] uses none on CIFAR by default.

    Args:
        depth: number of layers: 10, 16, 22, 28 or 40.
        widen_factor: widening factor k of [0], an integer >= 1.
        **options: num_classes, in_chans, stem_stride, last_stride, drop_rate and global_pool of
            :class:`mixplug.models.small.preact.PreActNet`.

    - [0]: Wide Residual Networks, 2016, https://arxiv.org/abs/1605.07146
    """

    def __init__(self, depth: int = 16, widen_factor: int = 8, **options: Any) -> None:
        super().__init__(wide_resnet_spec(depth, widen_factor), **options)


def wide_resnet16_8(
    num_classes: int = 10,
    in_chans: int = 3,
    stem_stride: int = 1,
    last_stride: int = 2,
    drop_rate: float = 0.0,
    **options: Any,
) -> WideResNet:
    """WRN-16-8: (B, in_chans, 32, 32) to (B, num_classes); A is 512x8x8."""
    return WideResNet(
        depth=16,
        widen_factor=8,
        num_classes=num_classes,
        in_chans=in_chans,
        stem_stride=stem_stride,
        last_stride=last_stride,
        drop_rate=drop_rate,
        **options,
    )
