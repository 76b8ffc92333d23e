"""A mixer can be taken off again, and nothing of it is left."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import timm
import torch
from hosts.hosting import mm_classifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import mixplug
import mixplug.mm
from mixplug import sampling
from mixplug.hosts import timm_stages, train_with


def timm_model() -> tuple[nn.Module, Tensor]:
    model = timm.create_model("test_resnet", num_classes=10)
    return model, torch.randn(2, 3, 64, 64)


def train_timm(model: nn.Module, mixer: mixplug.Mixer) -> None:
    stages = timm_stages(model)
    stages.tail.prepare()  # as the timm route of metric losses does
    mixer.attach(stages)
    for step in range(3):
        x = torch.randn(2, 3, 64, 64)
        mixer(stages, x, torch.arange(2), sampling.generators(0, step)).loss().backward()


def mm_model() -> tuple[nn.Module, Tensor]:
    config = {**mm_classifier(), "_scope_": "mmpretrain"}
    return MODELS.build(config), torch.randn(2, 3, 64, 64)


def train_mm(model: nn.Module, mixer: mixplug.Mixer) -> None:
    train_with(model, mixer)
    samples = [DataSample().set_gt_label(k) for k in range(2)]
    model.loss(torch.randn(2, 3, 64, 64), samples)["loss"].backward()


HOSTS = [(timm_model, train_timm), (mm_model, train_mm)]
MIXERS = [
    mixplug.build("MultiMix"),
    mixplug.build("AlignMixup", decoder="ae", image_shape=[3, 64, 64], decoder_width=8),
]


@pytest.mark.parametrize("mixer", MIXERS, ids=["multimix", "decoder"])
@pytest.mark.parametrize(("build", "train"), HOSTS, ids=["timm", "mm"])
def test_the_model_is_the_plain_one_again(
    build: Callable[[], tuple[nn.Module, Tensor]],
    train: Callable[[nn.Module, mixplug.Mixer], None],
    mixer: mixplug.Mixer,
) -> None:
    model, x = build()
    plain, names, attributes = type(model), list(model.state_dict()), set(vars(model))
    train(model, mixer)
    assert any(module._forward_pre_hooks for module in model.modules())
    assert mixplug.detach(model) is model
    assert type(model) is plain and list(model.state_dict()) == names
    assert set(vars(model)) == attributes
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    model.eval()
    wanted = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), wanted)
    train(model.train(), MIXERS[0])  # another one can be attached


def test_it_can_be_scripted_and_exported() -> None:
    model, x = timm_model()
    train_timm(model, MIXERS[1])
    mixplug.detach(model).eval()
    wanted = model(x)
    torch.testing.assert_close(torch.jit.script(model)(x), wanted)
    exported = torch.export.export(model, (x,), strict=True)
    torch.testing.assert_close(exported.module()(x), wanted)


def test_hooks_and_modules_of_others_stay() -> None:
    model, _ = timm_model()
    model.mixup = nn.Identity()
    calls: list[int] = []
    model.layer1.register_forward_hook(lambda *_: calls.append(1))
    mixplug.build("MultiMix").attach(timm_stages(model))
    mixplug.detach(model)
    model(torch.randn(1, 3, 64, 64))
    assert calls == [1] and isinstance(model.mixup, nn.Identity)
