"""Detectors whose heads assume other strides than their maps have are refused."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config

import mixplug.mm  # noqa: F401  registers
from mixplug.hosts.mm.models.strides import check_strides, strides_in

BASE = pathlib.Path(mmdet.__file__).parent / ".mim/configs"
TIMM = {"type": "mixplug.TimmViT", "model_name": "vit_tiny_patch16_224", "img_size": 112,
        "embed_dim": 24, "depth": 4, "num_heads": 3, "out_indices": (0, 1, 2, 3)}  # fmt: skip


def detector(patch: int, anchors: Any = None, rois: Any = None, backbone: Any = TIMM) -> Any:
    """Faster R-CNN of mmdet on a small ViT, with mmdet's strides unless others are given."""
    register_all_modules(init_default_scope=True)
    model = Config.fromfile(BASE / "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py").model
    model.backbone = {**backbone, "patch_size": patch}
    model.neck = [
        {"type": "mixplug.ViTPyramid", "embed_dim": 24},
        {"type": "FPN", "in_channels": [24] * 4, "out_channels": 16, "num_outs": 5},
    ]
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16)
    if anchors is not None:
        model.rpn_head.anchor_generator.strides = anchors
        model.roi_head.bbox_roi_extractor.featmap_strides = rois
    torch.manual_seed(0)
    return MODELS.build(model).train()


def losses(model: Any, side: int) -> dict[str, Any]:
    torch.manual_seed(0)
    data = model.data_preprocessor(demo_mm_inputs(1, [[3, side, side]], num_classes=80), True)
    return model(**data, mode="loss")


def test_patches_of_14_are_refused_with_the_strides_to_set() -> None:
    model = detector(14)
    wanted = [
        "maps of 64 x 64, 32 x 32, 16 x 16, 8 x 8, 4 x 4, whose strides are [3.5, 7, 14, 28, 56]",
        "config says rpn_head.prior_generator.strides=[4, 8, 16, 32, 64]; "
        "roi_head.bbox_roi_extractor.featmap_strides=[4, 8, 16, 32]",
        "Set rpn_head.prior_generator.strides=[3.5, 7, 14, 28, 56]; "
        "roi_head.bbox_roi_extractor.featmap_strides=[3.5, 7, 14, 28]",
    ]
    for _ in range(2):  # also the second pass, as after a caught error
        with pytest.raises(ValueError, match=".*".join(map(re.escape, wanted))):
            losses(model, 224)


def test_the_strides_of_the_message_fit_the_maps() -> None:
    model = detector(14, [3.5, 7, 14, 28, 56], [3.5, 7, 14, 28])
    found = losses(model, 224)
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in found["loss_rpn_cls"])
    maps = model.extract_feat(torch.zeros(1, 3, 224, 224))
    anchors = strides_in(model)["rpn_head.prior_generator.strides"]
    assert [224 / one.shape[-1] for one in maps] == anchors
    assert not model._forward_pre_hooks  # checked once


@pytest.mark.parametrize(("patch", "side"), [(16, 224), (16, 208)])
def test_patches_of_16_fit_the_strides_of_mmdet(patch: int, side: int) -> None:
    assert losses(detector(patch), side)


def test_a_backbone_of_mmpretrain_with_the_pyramid() -> None:
    arch = {"embed_dims": 24, "num_layers": 4, "num_heads": 3, "feedforward_channels": 48}
    backbone = {"type": "mmpretrain.VisionTransformer", "arch": arch, "img_size": 224,
                "out_indices": (0, 1, 2, 3), "out_type": "featmap"}  # fmt: skip
    with pytest.raises(ValueError, match=r"whose strides are \[3.5, 7, 14, 28, 56\]"):
        losses(detector(14, backbone=backbone), 224)


def test_rounding_of_small_maps_is_no_error() -> None:
    maps = [torch.zeros(1, 1, side, side) for side in (38, 19, 10, 5, 3, 1)]  # of SSD300
    check_strides(maps, (300, 300), {"head": [8, 16, 32, 64, 100, 300]})
    with pytest.raises(ValueError, match=r"head=\[7, 16, 32, 64, 100, 300\]"):
        check_strides(maps, (300, 300), {"head": [7, 16, 32, 64, 100, 300]})
