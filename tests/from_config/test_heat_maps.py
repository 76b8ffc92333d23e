"""CAM and attention of mmpretrain classifiers, by what the networks compute themselves."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from reference import localization as naive
from torch import Tensor, nn
from torch.testing import assert_close

import mixplug.mm  # noqa: F401  registers
from mixplug.from_config.heat_maps import heat_maps_of


def built(backbone: dict, head: dict, neck: dict | None = None) -> nn.Module:
    spec = {"type": "ImageClassifier", "backbone": backbone, "neck": neck, "head": head}
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return MODELS.build(spec).eval()


LINEAR = {"type": "LinearClsHead", "num_classes": 5, "in_channels": 512}
GAP = {"type": "GlobalAveragePooling"}


def resnet(**options: object) -> nn.Module:
    return built({"type": "ResNet", "depth": 18, **options}, LINEAR, GAP)


def vit(**options: object) -> nn.Module:
    arch = {"embed_dims": 32, "num_layers": 2, "num_heads": 4, "feedforward_channels": 64}
    return built(
        {"type": "VisionTransformer", "arch": arch, "img_size": 32, "patch_size": 8, **options},
        {"type": "VisionTransformerClsHead", "num_classes": 5, "in_channels": 32},
    )


@torch.no_grad()
def test_cam_of_a_cnn() -> None:
    """By loops over the map that the backbone gives; strides of 3.4.2 make it twice as large."""
    model, x = resnet(strides=(1, 2, 2, 1)), torch.randn(2, 3, 64, 64)
    classes = torch.tensor([3, 0])
    logits, maps = heat_maps_of(model)(x, classes)
    (a,) = model.backbone(x)
    assert a.shape[-2:] == maps.shape[-2:] == (4, 4)
    weight = model.head.fc.weight
    assert_close(maps, torch.tensor(naive.class_activation_map(a, weight, classes)), rtol=1e-4,
                 atol=1e-4)  # fmt: skip
    assert_close(logits, model(x))
    assert_close(maps.mean((1, 2)) + model.head.fc.bias[classes], logits[[0, 1], classes])


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_attention_of_a_transformer(size: tuple[int, int]) -> None:
    """The class token's row of the softmax over all tokens, the mean over four heads."""
    model, x = vit(), torch.randn(2, 3, *size)
    kept: list[Tensor] = []
    attention = model.backbone.layers[-1].attn
    handle = attention.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    logits, maps = heat_maps_of(model)(x, torch.tensor([4, 4]))
    handle.remove()
    assert len(kept) == 1  # a single pass
    qkv = attention.qkv(kept[0]).unflatten(-1, (3, 4, 8))
    expected = torch.zeros_like(maps)
    for image in range(2):
        for head in range(4):
            q, k = qkv[image, :, 0, head], qkv[image, :, 1, head]
            row = ((q[0] @ k.T) / 8**0.5).softmax(0)[1:]
            expected[image] += row.view(size[0] // 8, size[1] // 8) / 4
    assert_close(maps, expected)
    assert_close(logits, model(x))


@torch.no_grad()
def test_cam_of_a_transformer_that_pools() -> None:
    """Patch tokens that are averaged are a map like any other; those of a class token are not."""
    model = built(
        {"type": "mixplug.TimmBackbone", "model_name": "vit_tiny_patch16_224", "img_size": 32},
        {**LINEAR, "in_channels": 192}, GAP,
    )  # fmt: skip
    x, classes = torch.randn(1, 3, 32, 32), torch.tensor([2])
    logits, maps = heat_maps_of(model)(x, classes)
    assert maps.shape == (1, 2, 2)
    assert_close(maps.mean((1, 2)) + model.head.fc.bias[2], logits[:, 2])
    with pytest.raises(ValueError, match=r"only average pooling is between .* --maps attention"):
        heat_maps_of(vit(), "cam")(x, classes)


def test_what_has_no_maps() -> None:
    with pytest.raises(ValueError, match=r"mmpretrain's ImageClassifier, got Linear"):
        heat_maps_of(nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"a kind in \('cam', 'attention'\), got 'grad'"):
        heat_maps_of(resnet(), "grad")
    with pytest.raises(ValueError, match=r"The backbone needs to be a .*, got ResNet"):
        heat_maps_of(resnet(), "attention")
    with pytest.raises(ValueError, match=r"needs a class token, got one without"):
        heat_maps_of(vit(with_cls_token=False, out_type="featmap"))
    maps = heat_maps_of(resnet())
    with pytest.raises(ValueError, match=r"classes in \[0, 5\), got 7 to 7"), torch.no_grad():
        maps(torch.randn(1, 3, 32, 32), torch.tensor([7]))
    pooled = built({"type": "ResNet", "depth": 18}, LINEAR, GAP)
    pooled.neck = nn.AdaptiveMaxPool2d(1)
    pooled.extract_feat = lambda x: (pooled.neck(pooled.backbone(x)[-1]).flatten(1),)
    with pytest.raises(ValueError, match="only average pooling"), torch.no_grad():
        heat_maps_of(pooled)(torch.randn(1, 3, 64, 64), torch.tensor([0]))
