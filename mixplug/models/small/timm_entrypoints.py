"""Register the small networks in timm: import this module, then call ``timm.create_model``.

It registers ``preact_resnet18`` and ``wide_resnet16_8``, also for ``features_only=True``.
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
        # Evaluate the whole image. timm's default would crop 32x32 from an image resized to 37x37.
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
    """PreActResNet-18 for timm, see :class:`mixplug.models.PreActResNet`."""
    return _create("preact_resnet18", PreActResNet, pretrained, 5, depth=18, **kwargs)


@register_model
def wide_resnet16_8(pretrained: bool = False, **kwargs: Any) -> PreActNet:
    """WRN-16-8 for timm, see :class:`mixplug.models.WideResNet`."""
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
    """Build a model with timm, after a check for options that these networks do not support.

    ``maps`` is the number of feature maps of ``features_only``: one of the stem, one per stage.
    """
    for name, rate in (("drop_path_rate", drop_path_rate), ("drop_block_rate", drop_block_rate)):
        if rate:
            raise ValueError(f"{variant} does not support {name}: it must be 0, got {rate}.")
    if pretrained:
        source = kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay")
        _require_weights(variant, *source)
    # timm finds 'stages.0' in the nested Sequentials only if it flattens the outer one.
    feature_cfg = {"flatten_sequential": True, "out_indices": tuple(range(maps))}
    return build_model_with_cfg(model_cls, variant, pretrained, feature_cfg=feature_cfg, **kwargs)


def _require_weights(variant: str, cfg: Any, overlay: dict[str, Any] | None) -> None:
    """Raise ValueError for ``pretrained=True`` without a file of weights."""
    if not resolve_pretrained_cfg(variant, cfg, overlay).has_weights:
        raise ValueError(
            f"No weights are published for {variant}, got pretrained=True. Set pretrained=False, "
            "or pass your own file as pretrained_cfg_overlay=dict(file=...) (train.py: "
            "--pretrained-path)."
        )
