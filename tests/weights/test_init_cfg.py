"""``init_cfg`` of mm backbones: weights are loaded completely and not overwritten."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from weights import made

import mixplug.mm  # noqa: F401  registers

KEYS = {"model_name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "embed_dim": 128}
KEYS |= {"depth": 2, "num_heads": 2, "mlp_ratio": 1.5}
WRAPPERS: dict[str, dict[str, Any]] = {
    "TimmViT": {**KEYS, "out_indices": (0, 1), "final_norm": True},
    "ClassTokens": {**KEYS, "blocks": 2},
    "TimmBackbone": KEYS,
}
KAIMING = {"type": "Kaiming", "layer": ["Conv2d", "Linear"]}
ONES = {
    "type": "Constant",
    "val": 1.0,
    "bias": 1.0,
    "layer": ["Linear", "LayerNorm", "BatchNorm2d"],
}


def built(kind: str, init_cfg: Any, scope: str = "mmdet", **keys: Any) -> Any:
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build({"type": kind, "init_cfg": init_cfg, **keys})


def ours(path: Path, **keys: Any) -> dict[str, Any]:
    return {"type": "mixplug.Pretrained", "checkpoint": str(path), **keys}


def lacks(model: nn.Module, expected: nn.Module) -> list[str]:
    """Names of tensors that are not the expected ones."""
    own, wanted = model.state_dict(), expected.state_dict()
    assert own.keys() <= wanted.keys() and own
    return [name for name, value in own.items() if not torch.equal(value, wanted[name])]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[nn.Module, Path]:
    """A ViT as timm saves it, without the prefix ``model.``."""
    source = made.timm_vit()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    return source, tmp_path / "a.pth"


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("kind", ["Pretrained", "mmengine.Pretrained", PretrainedInit])
def test_the_stock_key_loads(kind: Any, name: str, saved: tuple[nn.Module, Path]) -> None:
    source, path = saved
    model = built(f"mixplug.{name}", {"type": kind, "checkpoint": str(path)}, **WRAPPERS[name])
    model.init_weights()
    assert lacks(model.model, source) == []


@pytest.mark.parametrize("name", ["PreActResNet", "WideResNet"])
def test_the_stock_key_loads_what_mmengine_saved(name: str, tmp_path: Path) -> None:
    """The names start with ``backbone.``."""
    keys = {} if name == "PreActResNet" else {"depth": 10, "widen_factor": 1}
    source = made.shaken(built(f"mixplug.{name}", None, **keys))
    state = made.under("backbone.", source) | {"head.fc.weight": torch.ones(3)}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    for prefix in (None, "backbone."):
        init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth"), "prefix": prefix}
        model = built(f"mixplug.{name}", init_cfg, **keys)
        model.init_weights()
        assert lacks(model, source) == []


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_stock_key_refuses_what_does_not_fit(name: str, tmp_path: Path) -> None:
    torch.save(made.timm_vit(embed_dim=64, num_heads=1).state_dict(), tmp_path / "a.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth")}
    model = built(f"mixplug.{name}", init_cfg, **WRAPPERS[name])
    with pytest.raises(ValueError, match="the checkpoint has width 64; the model has width 128"):
        model.init_weights()


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"checkpoint": "https://host/a.pth"}, "checkpoint='https://host/a.pth'"),
        ({"checkpoint": "a.pth", "prefix": "teacher."}, r"prefix='teacher\.'"),
    ],
)
def test_the_error_for_the_stock_key_suggests_ours(
    name: str, more: dict[str, str], said: str
) -> None:
    message = rf"names of {name} .*, got {said}: use init_cfg=dict\(type='mixplug.Pretrained', c"
    with pytest.raises(ValueError, match=message):
        built(f"mixplug.{name}", {"type": "Pretrained", **more}, **WRAPPERS[name])


def test_the_old_key_of_mmseg_is_an_error() -> None:
    """Otherwise timm's own weights would be downloaded."""
    with pytest.raises(
        ValueError, match=r"is a bool, .* got 'open-mmlab://resnet50_v1c'. Load a ch"
    ):
        built("mixplug.TimmViT", None, **KEYS, pretrained="open-mmlab://resnet50_v1c")


@pytest.mark.parametrize("order", [1, -1], ids=["ours first", "ours last"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_list_for_a_vit(name: str, order: int, saved: tuple[nn.Module, Path]) -> None:
    source, path = saved
    for first in (ours(path), {"type": "Pretrained", "checkpoint": str(path)}):
        model = built(f"mixplug.{name}", [first, KAIMING, ONES][::order], **WRAPPERS[name])
        model.init_weights()
        assert lacks(model.model, source) == []


@pytest.mark.parametrize("form", ["dict", "list"])
@pytest.mark.parametrize("scope", ["mmpretrain", "mmdet", "mmseg"])
def test_a_resnet_of_each_framework(scope: str, form: str, tmp_path: Path) -> None:
    """mmpretrain's ResNet sets the last norm of each block to zero after all init_cfg."""
    source = made.shaken(timm.create_model("resnet18", num_classes=0))
    torch.save({"state_dict": made.under("backbone.", source)}, tmp_path / "a.pth")
    given: Any = ours(tmp_path / "a.pth")
    given = [given, KAIMING, ONES] if form == "list" else given
    model = built("ResNet", given, scope, depth=18)
    before = copy.deepcopy(given)
    model.init_weights()
    assert lacks(model, source) == [] and given == before
    whole = Whole(built("ResNet", given, scope, depth=18))
    whole.init_weights()
    assert lacks(whole.backbone, source) == []


class Whole(BaseModule):
    """A network around a backbone, with an initialization of its own."""

    def __init__(self, backbone: Any, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.backbone = backbone
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize("form", ["dict", "list"])
def test_a_vit_of_mmpretrain_keeps_its_positions(form: str, saved: tuple[nn.Module, Path]) -> None:
    """mmpretrain draws them again after every init_cfg except 'Pretrained'."""
    source, path = saved
    arch = {"embed_dims": 128, "num_layers": 2, "num_heads": 2, "feedforward_channels": 192}
    keys = {"arch": arch, "img_size": 32, "patch_size": 8}
    given: Any = [ours(path), ONES] if form == "list" else ours(path)
    model = built("VisionTransformer", given, "mmpretrain", **keys)
    model.init_weights()
    model.eval()
    torch.testing.assert_close(made.output(model), made.output(source), atol=1e-5, rtol=1e-5)


def test_a_backbone_with_its_own_initialization_is_loaded_last(tmp_path: Path) -> None:
    """mmdet's Swin looks for a checkpoint in every init_cfg and reads it itself."""

    class Own(BaseModule):
        asked = 0

        def __init__(self, init_cfg: Any, over: bool) -> None:
            super().__init__(init_cfg)
            self.linear, self.over = nn.Linear(2, 2), over

        def init_weights(self) -> None:
            Own.asked += 1
            if self.over:
                super().init_weights()
            nn.init.constant_(self.linear.weight, 5.0)

    source = nn.Linear(2, 2)
    torch.save(made.under("linear.", source), tmp_path / "a.pth")
    for over in (False, True):
        whole = Whole(Own(ours(tmp_path / "a.pth"), over), ONES)
        whole.init_weights()
        assert lacks(whole.backbone.linear, source) == []
        assert bool((whole.head.weight == 1).all())
    assert Own.asked == 2


def test_trained_weights_are_not_overwritten(tmp_path: Path, saved: tuple[nn.Module, Path]) -> None:
    model = Whole(built("mixplug.TimmViT", ours(saved[1]), **WRAPPERS["TimmViT"]))
    model.init_weights()
    nn.init.constant_(model.backbone.model.norm.weight, 3.0)
    model.init_weights()
    model.backbone.init_weights()
    again = Whole(model.backbone)
    again.init_weights()
    assert lacks(again.backbone.model, saved[0]) == ["norm.weight"]


def test_a_copy_can_be_initialized_again(saved: tuple[nn.Module, Path]) -> None:
    """A copy whose is_init is reset loads the checkpoint again, through mixplug's key."""
    model = built("mixplug.TimmViT", ours(saved[1]), **WRAPPERS["TimmViT"])
    model.init_weights()
    other = copy.deepcopy(model)
    nn.init.constant_(other.model.norm.weight, 3.0)
    other.is_init = False
    other.init_weights()
    assert lacks(other.model, saved[0]) == []
