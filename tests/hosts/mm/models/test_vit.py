"""TimmViT and its weights in mmdet and mmseg: what is loaded stays, what does not fit stops."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.testing import assert_close

import mixplug.mm  # noqa: F401  registers
from mixplug.models.self_distillation import DoRA
from mixplug.models.vit import timm_model

ROOT = Path(__file__).parents[4] / "mm_configs"
DETECTOR = "detection/cascade-mask-rcnn_vit-tiny_fpn_1xb8-6e_digits.py"
SEGMENTOR = "segmentation/vit-tiny_upernet_1xb8-300_digits-128x128.py"
VIT = {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 6}


@pytest.fixture(scope="module")
def dora(tmp_path_factory: pytest.TempPathFactory) -> tuple[DoRA, Path]:
    torch.manual_seed(0)
    head = {"out_dim": 16, "hidden": 8, "bottleneck": 4}
    method = DoRA({"name": "vit_tiny_patch16_224", **VIT}, head=head)
    for parameter in method.teacher.parameters():
        nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("dora") / "dora.pth"
    torch.save({"state_dict": method.state_dict()}, path)
    return method.eval(), path


def built(name: str, init_cfg: dict[str, Any] | None = None, **backbone: Any) -> Any:
    config = Config.fromfile(ROOT / name)
    config.model.backbone.update(backbone)
    config.model.backbone.init_cfg = init_cfg
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return MODELS.build(config.model), config


def pretrained(path: Path, **keys: Any) -> dict[str, Any]:
    return {"type": "mixplug.Pretrained", "checkpoint": str(path), **keys}


@pytest.mark.parametrize("name", [DETECTOR, SEGMENTOR])
def test_the_weights_of_the_running_model_are_the_teachers(
    name: str, dora: tuple[DoRA, Path]
) -> None:
    method, path = dora
    model, _ = built(name, pretrained(path, part="teacher"), final_norm=True)
    model.init_weights()
    model.init_weights()  # again, as some tools do
    teacher = method.teacher.backbone.state_dict()
    own = model.backbone.model.state_dict()
    assert own.keys() == teacher.keys()
    assert [key for key in own if not torch.equal(own[key], teacher[key])] == []
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = method.teacher_encoder.tokens(image).patches.mT.unflatten(2, (8, 8))
        assert_close(model.eval().backbone(image)[-1], wanted)


def test_children_are_not_initialized_over_what_was_loaded(tmp_path: Path) -> None:
    """mmengine goes on to the children of a module whose init_cfg is not its own 'Pretrained'."""

    class Part(BaseModule):
        def __init__(self) -> None:
            super().__init__({"type": "Constant", "val": 7.0, "layer": "Linear"})
            self.linear = nn.Linear(2, 2)

    class Whole(BaseModule):
        def __init__(self, init_cfg: Any) -> None:
            super().__init__(init_cfg)
            self.part = Part()

    path = tmp_path / "whole.pth"
    state = {"part.linear.weight": torch.full((2, 2), 3.0), "part.linear.bias": torch.ones(2)}
    torch.save(state, path)
    loaded = Whole(pretrained(path))
    loaded.init_weights()
    assert_close(loaded.state_dict(), state)
    plain = Whole(None)
    plain.init_weights()
    assert bool((plain.part.linear.weight == 7).all())


def test_one_line_says_what_was_loaded(dora: tuple[DoRA, Path]) -> None:
    said: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger = MMLogger.get_current_instance()
    level = logger.level
    handler = Kept()
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        model, _ = built(DETECTOR, pretrained(dora[1], part="teacher"), img_size=128)
        model.backbone.init_weights()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    (line,) = [text for text in said if text.startswith("TimmViT: ")]
    assert "40 of 40 tensors (100.00 % of" in line and "from teacher" in line
    assert "resized pos_embed from (1, 65, 96) to (1, 257, 96) positions" in line or (
        "resized pos_embed from 65 to 257 positions" in line
    )
    assert "unexpected: norm.weight, norm.bias" in line


@pytest.mark.parametrize(
    ("backbone", "text"),
    [
        ({"embed_dim": 48}, r"only this fits: .*\(96,\)\s+\(48,\)"),
        ({"depth": 4, "out_indices": (0, 1, 2, 3)}, r"missing +blocks\.\*\.norm1\.weight +-"),
        ({"patch_size": 16}, r"mismatched +patch_embed\.proj\.weight +\(96, 3, 8, 8\)"),
    ],
)
def test_another_architecture_stops_with_the_shapes(
    backbone: dict[str, Any], text: str, dora: tuple[DoRA, Path]
) -> None:
    model, _ = built(DETECTOR, pretrained(dora[1], part="teacher"), **backbone)
    before = copy.deepcopy(model.backbone.state_dict())
    with pytest.raises(ValueError, match=r"99 % of VisionTransformer must be loaded") as error:
        model.init_weights()
    import re

    assert re.search(text, str(error.value), re.DOTALL), str(error.value)
    assert_close(model.backbone.state_dict(), before)


def test_less_may_be_asked_for(dora: tuple[DoRA, Path]) -> None:
    keys = {"depth": 4, "out_indices": (0, 1, 2, 3)}
    model, _ = built(DETECTOR, pretrained(dora[1], part="teacher", min_loaded=0.7), **keys)
    model.backbone.init_weights()
    teacher = dora[0].teacher.backbone
    assert_close(model.backbone.model.blocks[2].state_dict(), teacher.blocks[2].state_dict())


@pytest.mark.parametrize("source", ["timm", "mmpretrain"])
def test_a_resnet_50_trained_with_mixup(source: str, tmp_path: Path) -> None:
    """Into the detectors of Table 5.5, as timm's train.py or mmpretrain's Runner has saved it."""
    torch.manual_seed(0)
    resnet = timm_model("resnet50")
    state = resnet.state_dict()
    if source == "timm":
        saved = {"state_dict": {**state, "fc.weight": torch.zeros(10, 2048)}}
    else:
        saved = {"state_dict": {f"backbone.{k}": v for k, v in state.items()}}
        saved["state_dict"]["head.fc.weight"] = torch.zeros(10, 2048)
    path = tmp_path / "resnet50.pth"
    torch.save(saved, path)
    for name in ("detection/faster-rcnn_r50_fpn_1x_coco.py", "detection/ssd300_r50_voc0712.py"):
        config = Config.fromfile(ROOT / name)
        config.model.backbone.init_cfg.checkpoint = str(path)
        with DefaultScope.overwrite_default_scope("mmdet"):
            backbone = MODELS.build(config.model.backbone)
        backbone.init_weights()
        own = backbone.state_dict()
        assert [key for key, value in own.items() if not torch.equal(value, state[key])] == []
        assert len(own) == (318 if "faster" in name else 258)


def test_rates_of_layers() -> None:
    """lr rate^(L - l), by hand, and nothing of weight decay for norms and biases."""
    model, config = built(DETECTOR)
    config.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.5
    config.optim_wrapper.optimizer.lr = 1.0
    with DefaultScope.overwrite_default_scope("mmdet"):
        optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    settings = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    named = dict(model.named_parameters())
    assert settings.keys() == {id(p) for p in named.values()}
    for name, lr, decay in (
        ("backbone.model.pos_embed", 0.5**4, 0.05),
        ("backbone.model.patch_embed.proj.weight", 0.5**4, 0.05),
        ("backbone.model.blocks.0.mlp.fc1.weight", 0.5**3, 0.05),
        ("backbone.model.blocks.2.mlp.fc1.weight", 0.5**1, 0.05),
        ("backbone.model.blocks.2.mlp.fc1.bias", 0.5**1, 0.0),
        ("backbone.model.blocks.1.norm1.weight", 0.5**2, 0.0),
        ("neck.0.levels.1.weight", 1.0, 0.05),
        ("roi_head.bbox_head.2.fc_cls.weight", 1.0, 0.05),
    ):
        assert settings[id(named[name])] == pytest.approx((lr, decay)), name
    assert len(optimizer.param_groups) < 20


@pytest.mark.parametrize("rate", [None, 0.0, 1.5])
def test_rates_that_are_not_allowed(rate: float | None) -> None:
    model, config = built(DETECTOR)
    config.optim_wrapper.paramwise_cfg = {"layer_decay_rate": rate} if rate is not None else {}
    with (
        DefaultScope.overwrite_default_scope("mmdet"),
        pytest.raises(ValueError, match=r"layer_decay_rate=\.\.\.\) in \(0, 1\], got"),
    ):
        build_optim_wrapper(model, config.optim_wrapper)


def test_a_backbone_that_does_not_say_depths() -> None:
    _, config = built(DETECTOR)
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with (
        DefaultScope.overwrite_default_scope("mmdet"),
        pytest.raises(ValueError, match=r"get_layer_depth, such as mixplug\.TimmViT, got Module w"),
    ):
        build_optim_wrapper(model, config.optim_wrapper)
