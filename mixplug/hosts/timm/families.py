"""One model of each model file of timm, the smallest: whom ``mixplug doctor models`` looks at."""

from __future__ import annotations

from collections.abc import Callable

import timm
from torch import nn

from mixplug.hosts.timm.stages import timm_stages
from mixplug.stages import Stages

FAMILIES = (
    "beit_base_patch16_224", "halonet_h1", "test_byobnet", "cait_xxs24_224", "coat_tiny",
    "convit_tiny", "convmixer_768_32", "test_convnext", "cpubone_nano", "crossvit_tiny_240",
    "csatv2", "cs3darknet_focus_s", "cspnext_tiny", "davit_tiny", "deepseek_vit_412m",
    "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b", "edgenext_xx_small",
    "efficientformer_l1", "efficientformerv2_s0", "test_efficientnet", "efficientvim_m1",
    "efficientvit_b0", "efficientvit_m0", "vit_tiny_patch16_dinov3_qkvb", "fasternet_t0",
    "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny", "gemma4_vit_167m", "ghostnet_050",
    "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224", "sam2_hiera_tiny", "hrnet_w18_small",
    "iformer_t", "inception_next_atto", "inception_resnet_v2", "inception_v3", "inception_v4",
    "lcnetv2_small", "levit_128s", "lowformer_b0", "test_mambaout", "test_coatnet",
    "poolformerv2_s12", "gmlp_ti16_224", "mobilenetv3_small_050", "mobilenetv5_base",
    "mobilevit_xxs", "mvitv2_tiny", "naflexvit_base_patch16_parfac_gap", "nasnetalarge",
    "nest_tiny", "nextvit_small", "test_nfnet", "pit_ti_224", "pnasnet5large", "pvt_v2_b0",
    "qwen3_vit_88m", "rdnet_tiny", "regnetx_002", "repghostnet_050", "repvit_m1", "res2next50",
    "resnest14d", "test_resnet", "resnetv2_18", "rexnet_100", "selecsls42", "legacy_seresnet18",
    "sequencer2d_s", "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_xs",
    "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224",
    "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "vgg11",
    "visformer_tiny", "test_vit", "vit_tiny_r_s16_p8_224", "test_vit_relpos",
    "samvit_base_patch16_224", "vitamin_small_224", "volo_d1_224", "ese_vovnet19b_slim_dw",
    "legacy_xception", "xception41p", "xcit_nano_12_p8_224",
)  # fmt: skip

# What makes a model smaller that is the smallest of its family and very large.
_SHALLOW = {
    "deepseek_vit_412m": {"depth": 4},
    "gemma4_vit_167m": {"depth": 4},
    "qwen3_vit_88m": {"depth": 4},
}
_LARGEST, _SMALLER = 299, 224  # larger images than the former take very long, if none are needed


def subject(name: str) -> tuple[Callable[[], Stages], tuple[int, ...]]:
    """A timm model with random weights: a function to its stages, and the size of its images.

    Args:
        name: as for ``timm.create_model``.

    Raises:
        RuntimeError: timm has no such model.
    """
    model = _model(name).eval()
    size = tuple(model.pretrained_cfg["input_size"])
    if max(size) > _LARGEST and not model.pretrained_cfg.get("fixed_input_size"):
        size = (size[0], _SMALLER, _SMALLER)
    return lambda: timm_stages(model), size


def _model(name: str) -> nn.Module:
    """With a grid for the size of the images, where the model has one."""
    config, keys = timm.get_pretrained_cfg(name), _SHALLOW.get(name, {})
    large = config is not None and max(config.input_size) > _LARGEST
    if large and not config.fixed_input_size:
        try:
            found: nn.Module = timm.create_model(name, num_classes=10, img_size=_SMALLER, **keys)
            return found
        except TypeError:  # takes images of any size as it is
            pass
    return timm.create_model(name, num_classes=10, **keys)
