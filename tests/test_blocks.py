"""Where the map to be aligned is taken, and why not directly before pooling."""

import pytest
import timm
import torch
from mmpretrain.models import build_backbone
from torch import nn

from mixplug.blocks import before_last_block
from mixplug.functional import align, mix
from mixplug.models import preact_resnet18, wide_resnet16_8


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_alignment_keeps_the_mean_over_positions(lam: float) -> None:
    a, b = torch.randn(2, 3, 5, 4, 4, dtype=torch.float64)
    aligned = mix(a, align(a, b)[0], lam).mean((2, 3))
    torch.testing.assert_close(aligned, mix(a, b, lam).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "block"),
    [
        (preact_resnet18, "stages.3.0"),
        (wide_resnet16_8, "stages.2.0"),
        (lambda: timm.create_model("resnet50"), "layer4.1"),
        (lambda: timm.create_model("vit_tiny_patch16_224"), "blocks.10"),
        (lambda: timm.create_model("convnext_atto"), "stages.3.blocks.0"),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224"), "layers.3.blocks.0"),
        (lambda: build_backbone({"type": "ResNet", "depth": 18}), "layer4.0"),
        (lambda: build_backbone({"type": "VisionTransformer", "arch": "deit-tiny"}), "layers.10"),
    ],
)
def test_the_last_block_but_one(model, block: str) -> None:
    assert before_last_block(model()) == block


def test_a_network_that_is_itself_the_container() -> None:
    blocks = [nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)) for _ in range(3)]
    assert before_last_block(nn.Sequential(*blocks)) == "1"


def test_layers_are_no_blocks() -> None:
    assert before_last_block(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) is None
