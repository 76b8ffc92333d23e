"""Make the small-image networks known to timm: import this file, then ``timm.create_model``.

Registered are ``preact_resnet18`` and ``wide_resnet16_8``; ``features_only=True`` works too.
"""

from __future__ import annotations

from typing import Any

from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    resolve_pretrained_cfg,
)

from mixplug.models.small.preact import PreActNet
from mixplug.models.small.preact_resnet import PreActResNet
from mixplug.models.small.wide_resnet import WideResNet

# Channel statistics of the CIFAR-10 training images, RGB in [0, 1].
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


def _cfg(pool_size: tuple[int, int]) -> dict[str, Any]:
    return {
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": pool_size,
        # The evaluation sees the whole image; timm's default would crop 32x32 out of 37x37.
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": CIFAR_MEAN,
        "std": CIFAR_STD,
        "first_conv": "conv1",
        "classifier": "fc",
    }


default_cfgs = generate_default_cfgs(
    {"preact_resnet18": _cfg((4, 4)), "wide_resnet16_8": _cfg((8, 8))}
)


@register_model
def preact_resnet18(pretrained: bool = False, **kwargs: Any) -> PreActNet:
    """Build PreActResNet-18 as timm does; see :class:`mixplug.models.PreActResNet`."""
    return _create("preact_resnet18", PreActResNet, pretrained, 5, depth=18, **kwargs)


@register_model
def wide_resnet16_8(pretrained: bool = False, **kwargs: Any) -> PreActNet:
    """Build WRN-16-8 as timm does; see :class:`mixplug.models.WideResNet`."""
    return _create("wide_resnet16_8", WideResNet, pretrained, 4, depth=16, widen_factor=8, **kwargs)


def _create(
    variant: str,
    model_cls: type[PreActNet],
    pretrained: bool,
    maps: int,
    drop_path_rate: float = 0.0,
    drop_block_rate: float = 0.0,
    **kwargs: Any,
) -> PreActNet:
    """Build through timm, after refusing what these networks do not have.

    ``maps`` counts the feature maps of ``features_only``: the stem's and one per stage.
    """
    for name, rate in (("drop_path_rate", drop_path_rate), ("drop_block_rate", drop_block_rate)):
        if rate:
            raise ValueError(f"{variant} has no such regularizer: got {name}={rate}, allowed is 0.")
    if pretrained:
        source = kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay")
        _require_weights(variant, *source)
    # Two levels of Sequential: timm finds 'stages.0' only when it flattens the outer one.
    feature_cfg = {"flatten_sequential": True, "out_indices": tuple(range(maps))}
    return build_model_with_cfg(model_cls, variant, pretrained, feature_cfg=feature_cfg, **kwargs)


def _require_weights(variant: str, cfg: Any, overlay: dict[str, Any] | None) -> None:
    """Refuse ``pretrained=True`` unless the caller says where weights of their own are."""
    if not resolve_pretrained_cfg(variant, cfg, overlay).has_weights:
        raise ValueError(
            f"No weights are published for {variant}: got pretrained=True, allowed is False, or "
            "your own file as pretrained_cfg_overlay=dict(file=...) (train.py: --pretrained-path)."
        )
