"""mmpretrain: where classifiers are mixed, with stock backbones and with those of wrappers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.testing import assert_close

import mixplug
import mixplug.mm
from mixplug import sampling
from mixplug.functional.aligned import align, mix
from mixplug.hosts.mm.mixing.classifier import mm_stages
from mixplug.stages import Stages

STACKED = {
    "type": "StackedLinearClsHead",
    "in_channels": 576,
    "mid_channels": [16],
    "dropout_rate": 0.0,
    "act_cfg": {"type": "HSwish"},
}
LINEAR = {"type": "LinearClsHead"}
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}


def build(
    backbone: dict[str, Any], width: int, head: dict[str, Any] = LINEAR, pooled: bool = True
) -> nn.Module:
    """An ImageClassifier in evaluation mode, with 5 classes and, if ``pooled``, average pooling."""
    torch.manual_seed(0)
    neck = {"neck": {"type": "mmpretrain.GlobalAveragePooling"}} if pooled else {}
    head = {"in_channels": width, **head, "num_classes": 5, "_scope_": "mmpretrain"}
    config = {"type": "mmpretrain.ImageClassifier", "backbone": backbone, **neck, "head": head}
    return MODELS.build(config).eval()


def trained(model: nn.Module) -> nn.Module:
    """With statistics of a batch, so that values are about 1, as after some training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(torch.randn(8, 3, 64, 64))
    return model.eval()


def of_timm(name: str, **keys: Any) -> dict[str, Any]:
    return {"type": "mixplug.TimmBackbone", "model_name": name, **keys}


def mixed(stages: Stages, x: Tensor, **keys: Any) -> Tensor:
    mixer = mixplug.build("AlignMixup", modes=("A",), **keys)
    y = torch.arange(len(x)) % 5
    with torch.no_grad():
        logits: Tensor = mixer(stages, x, y, sampling.generators(0, 0)).logits
    return logits


def test_mobilenet_v3_is_not_aligned_in_vain() -> None:
    """A 1x1 convolution and pooling end its backbone, and the logits were those of no alignment."""
    model = trained(build({"type": "mmpretrain.MobileNetV3", "arch": "small"}, 576, STACKED))
    stages, x = mm_stages(model), torch.randn(4, 3, 64, 64)
    one, other = (mixed(stages, x, align=way) for way in (True, False))
    spread = (other - other.mean(0)).abs().max()
    assert float((one - other).abs().max() / spread) > 0.02
    assert stages.features == "backbone.layer10"
    swapped = stages(x, features=lambda a: a.roll(1, 0)).logits
    assert_close(swapped, stages(x).logits.roll(1, 0))


WRAPPED = {
    "channels last": (
        of_timm(
            "swin_tiny_patch4_window7_224",
            img_size=64, embed_dim=12, depths=(1, 1, 1, 2), num_heads=(1, 1, 1, 1), window_size=2,
        ),
        96,
        (96, 2, 2),
        0,
    ),
    "registers": (of_timm("vit_small_patch16_224", **SMALL, reg_tokens=4), 24, (24, 4, 4), 5),
    "distilled": (of_timm("deit_tiny_distilled_patch16_224", **SMALL), 24, (24, 4, 4), 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_maps_within_a_wrapper_are_read_as_they_are(kind: str) -> None:
    """Tokens before the patches are no patches, and the last dimension may be the channels."""
    backbone, width, shape, prefix = WRAPPED[kind]
    model = build(backbone, width)
    stages, x = mm_stages(model), torch.randn(4, 3, *[64 if prefix == 0 else 32] * 2)
    mixer = mixplug.build("AlignMixup", modes=("A",))
    plan = mixer.sample(x, sampling.generators(0, 0))
    with torch.no_grad():
        found = mixer(stages, x, torch.arange(4), sampling.generators(0, 0)).logits
        assert tuple(stages.with_map(x)[1].shape[1:]) == shape

        def by_hand(output: Tensor) -> Tensor:
            if prefix == 0:
                return aligned(output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            tokens, patches = output[:, :prefix], output[:, prefix:]
            a = aligned(patches.mT.reshape(len(x), *shape)).flatten(2).mT
            lam = plan.lam[:, None, None]
            return torch.cat([lam * tokens + (1 - lam) * tokens[plan.permutation], a], 1)

        def aligned(a: Tensor) -> Tensor:
            moved, _ = align(a, a[plan.permutation], mixer.eps, mixer.iters)
            return mix(a, moved, plan.lam)

        assert_close(found, stages(x, layers={stages.features: by_hand}).logits)


def test_a_part_of_an_image_beside_the_patches_is_seen() -> None:
    """In TNT tokens of pixels go on beside those of patches, so patches alone are not the image."""
    backbone = {
        "type": "mmpretrain.TNT",
        "arch": {
            "embed_dims_outer": 16, "embed_dims_inner": 4, "num_layers": 3, "num_heads_outer": 2,
            "num_heads_inner": 2,
        },
        "img_size": 32, "patch_size": 8, "first_stride": 4,
    }  # fmt: skip
    model = build(backbone, 16, pooled=False)
    stages, x = mm_stages(model), torch.randn(4, 3, 32, 32)
    mixed(stages, x)
    assert stages.features == "backbone.pixel_embed.proj"
    swapped = stages(x, features=lambda a: a.roll(1, 0)).logits
    assert_close(swapped, stages(x).logits.roll(1, 0))


def test_a_backbone_that_classifies() -> None:
    """VGG has its classifier in the backbone, and a head without a layer."""
    torch.manual_seed(0)
    model = MODELS.build(
        {
            "type": "mmpretrain.ImageClassifier",
            "backbone": {"type": "mmpretrain.VGG", "depth": 11, "num_classes": 5},
            "head": {"type": "mmpretrain.ClsHead"},
        }
    ).eval()
    stages, x = mm_stages(model), torch.randn(4, 3, 224, 224)
    assert stages.classifier is model.backbone.classifier[-1]
    with torch.no_grad():
        forward = stages(x)
        wanted = model.backbone.classifier[-1](forward.embedding)
        assert_close(forward.logits, wanted)
        assert_close(forward.logits, model(x))
        swapped = stages(x, embedding=lambda e: e.roll(1, 0)).logits
    assert_close(swapped, forward.logits.roll(1, 0))
