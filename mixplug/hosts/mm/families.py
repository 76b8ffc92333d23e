"""Configs of mmpretrain that cover its backbones: what ``mixplug doctor models`` looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmpretrain
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.utils import register_all_modules
from torch import nn

from mixplug.hosts.mm.mixing.classifier import mm_stages, require_trainable
from mixplug.stages import Stages

# Files below mmpretrain's configs, without their suffix; all but the last below _base_/models.
FAMILIES = (
    "conformer/tiny-p16", "convmixer/convmixer-768-32", "convnext/convnext-tiny",
    "convnext_v2/atto", "davit/davit-tiny", "deit3/deit3-small-p16-224", "densenet/densenet121",
    "edgenext/edgenext-xxsmall", "efficientformer-l1", "efficientnet_b0", "efficientnet_em",
    "efficientnet_v2/efficientnetv2_b0", "efficientnet_v2/efficientnetv2_s", "hivit/tiny_224",
    "hornet/hornet-tiny", "hornet/hornet-tiny-gf", "hrnet/hrnet-w18", "inception_v3",
    "levit-256-p16", "mixmim/mixmim_base", "mlp_mixer_base_patch16", "mobilenet_v2_1x",
    "mobilenet_v3/mobilenet_v3_small_050_imagenet", "mobilenet_v3/mobilenet_v3_large_imagenet",
    "mobileone/mobileone_s0", "mobilevit/mobilevit_xxs", "mobilevit/mobilevit_s",
    "mvit/mvitv2-tiny", "poolformer/poolformer_s12", "regnet/regnetx_400mf",
    "replknet-31B_in1k", "repmlp-base_224", "repvgg-A0_in1k", "res2net50-w14-s8", "resnest50",
    "resnet18", "resnet50", "resnet18_cifar", "resnet34_gem", "resnetv1c50", "resnetv1d50",
    "resnext50_32x4d", "revvit/revvit-small", "seresnet50", "seresnext50_32x4d",
    "shufflenet_v1_1x", "shufflenet_v2_1x", "swin_transformer/tiny_224",
    "swin_transformer_v2/tiny_256", "t2t-vit-t-14", "tinyvit/tinyvit-5m", "tnt_s_patch16_224",
    "twins_pcpvt_base", "twins_svt_base", "van/van_tiny", "vgg11", "vgg11bn", "vig/vig_tiny",
    "vig/pyramid_vig_tiny", "vit-base-p32", "wide-resnet50",
    "../../beit/benchmarks/beit-base-p16_8xb128-coslr-100e_in1k",
    "../../cspnet/cspdarknet50_8xb32_in1k", "../../cspnet/cspresnet50_8xb32_in1k",
    "../../cspnet/cspresnext50_8xb32_in1k", "../../deit/deit-tiny-distilled_4xb256_in1k",
    "../../riformer/riformer-s12_8xb128_in1k", "../../xcit/xcit-nano-12-p16_8xb128_in1k",
)  # fmt: skip


def subject(name: str) -> tuple[Callable[[], Stages], tuple[int, ...]]:
    """An mmpretrain classifier with random weights: a function to its stages, and its image size.

    Args:
        name: one of :data:`FAMILIES`, or the path of a config file.

    Raises:
        FileNotFoundError: no such config.
        ValueError: its model is no classifier that can be mixed.
    """
    register_all_modules(init_default_scope=False)
    base = Path(mmpretrain.__file__).parent / ".mim/configs/_base_/models"
    own = Path(name)
    model = Config.fromfile(own if own.suffix == ".py" else base / f"{name}.py").model
    model.pop("train_cfg", None)
    if isinstance(model.backbone.get("init_cfg"), dict):  # weights that are not there
        model.backbone.pop("init_cfg")
    with DefaultScope.overwrite_default_scope("mmpretrain"), _without_log():
        built: nn.Module = MODELS.build({**model, "data_preprocessor": {}}).eval()
        built.init_weights()

    def stages() -> Stages:
        require_trainable(built)
        return mm_stages(built)

    return stages, _size(model.backbone)


@contextmanager
def _without_log() -> Iterator[None]:
    """Without mmengine's log, which has a line for each parameter that is initialized."""
    logger = MMLogger.get_current_instance()
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _size(backbone: dict[str, Any]) -> tuple[int, ...]:
    side = backbone.get("img_size", 299 if "Inception" in str(backbone["type"]) else 224)
    if "CIFAR" in str(backbone["type"]):
        side = 32
    height, width = (side, side) if isinstance(side, int) else side
    return 3, height, width
