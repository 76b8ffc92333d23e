"""VGG-GAP has the layers and names of torchvision's VGG-16, and a map of 14 x 14."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.registry import DefaultScope
from torch.testing import assert_close
from torchvision.models import vgg

from mixplug.models.small.vgg_gap import VGGGAP
from mixplug.registry import MODELS


def test_layers_of_torchvision() -> None:
    """With its weights loaded, maps before conv6 equal those of vgg16 before the last pooling."""
    theirs, ours = vgg.make_layers(vgg.cfgs["D"]).eval(), VGGGAP(width=8).eval()
    given = {f"features.{name}": value for name, value in theirs.state_dict().items()}
    left = ours.load_state_dict(given, strict=False)
    assert left.missing_keys == ["conv6.weight", "conv6.bias"] and not left.unexpected_keys
    x = torch.randn(1, 3, 48, 32)
    with torch.no_grad():
        before = ours.features(x)
        assert_close(before, theirs[:-1](x))
        assert_close(ours.forward_features(x), ours.conv6(before).clamp(min=0))
    assert ours.forward_features(x).shape == (1, 8, 3, 2)


def test_mm_backbone_takes_weights_from_a_file(tmp_path: Path) -> None:
    """The file is a whole vgg16: its classifier is ignored, and conv6 keeps its initial weights."""
    state = {f"features.{k}": v for k, v in vgg.make_layers(vgg.cfgs["D"]).state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg16.pth")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "vgg16.pth")}
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build({"type": "mixplug.VGGGAP", "init_cfg": init})
    model.init_weights()
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items())
    assert model.num_features == 1024 and not own["conv6.bias"].any()
    spread = (2 / (1024 * 9)) ** 0.5
    assert_close(own["conv6.weight"].std(), torch.tensor(spread), rtol=0.02, atol=0)
    with torch.no_grad():
        (a,) = model.eval()(torch.zeros(1, 3, 224, 224))
    assert a.shape == (1, 1024, 14, 14)
