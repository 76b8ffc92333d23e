"""timm's model families in stages: every layout, pooling and kind of token."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import mixplug
from mixplug.hosts.timm.stages import timm_stages
from mixplug.mixers.base import Plan

_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
_BEIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}

# Name of an architecture, and what makes it small.
CNNS = {
    "test_resnet": {},
    "test_byobnet": {},
    "test_efficientnet": {},
    "test_efficientnet_gn": {},
    "test_nfnet": {},
    "mobilenetv3_small_050": {},
    "regnetx_002": {},
    "densenet121": {"growth_rate": 4, "block_config": (1, 1, 1, 1)},
    "preact_resnet18": {},
}
# Where nothing but what is pointwise or linear lies between the map and the logits, so that the
# mean of dense logits is the logits.
LINEAR = {
    "test_resnet",
    "test_byobnet",
    "test_efficientnet",
    "test_nfnet",
    "regnetx_002",
    "densenet121",
    "preact_resnet18",
}
NORM_AFTER_POOLING = {
    "test_convnext": {},
    "test_mambaout": {},
    "test_coatnet": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {
        "img_size": 64,
        "embed_dim": 16,
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 1, 1, 1),
        "window_size": 2,
    },
}
TOKENS = {
    "vit_small_patch16_224-token": {**_VIT, "global_pool": "token"},
    "vit_small_patch16_224-avg": {**_VIT, "global_pool": "avg", "class_token": False},
    "vit_small_patch16_224-map": {**_VIT, "global_pool": "map", "class_token": False},
    "vit_small_patch16_224-regs": {**_VIT, "reg_tokens": 4, "qk_norm": True},
    "vit_small_patch16_224-regs-avg": {**_VIT, "reg_tokens": 4, "global_pool": "avg"},
    "beit_base_patch16_224": _BEIT,
    "eva02_tiny_patch14_224": {**_BEIT, "patch_size": 8},
    "deit3_small_patch16_224": {**_VIT, "init_values": 0.5},
    "mixer_s16_224": {"img_size": 64},
}
ALL = {**CNNS, **NORM_AFTER_POOLING, **TOKENS}
PREFIX = {
    "vit_small_patch16_224-token": 1,
    "vit_small_patch16_224-avg": 0,
    "vit_small_patch16_224-map": 0,
    "vit_small_patch16_224-regs": 5,
    "vit_small_patch16_224-regs-avg": 5,
    "beit_base_patch16_224": 1,
    "eva02_tiny_patch14_224": 1,
    "deit3_small_patch16_224": 1,
    "mixer_s16_224": 0,
}


def make(name: str, **more: Any) -> nn.Module:
    mixplug.models.register_in_timm()
    options = {"num_classes": 5, **ALL[name], **more}
    model = timm.create_model(name.partition("-")[0], **options).eval()
    for parameter in model.get_classifier().parameters():  # some start at or near zero
        nn.init.normal_(parameter, std=0.3)
    return model


def images(name: str, size: int = 3) -> torch.Tensor:
    side = ALL[name].get("img_size", 64)
    return torch.randn(size, 3, side, side)


@pytest.mark.parametrize("name", ALL)
def test_stages_are_the_model(name: str) -> None:
    model, x = make(name), images(name)
    stages = timm_stages(model)
    with torch.no_grad():
        expected = model(x)
        forward = stages(x)
        assert torch.equal(forward.logits, expected)
        assert_close(stages.classifier(forward.embedding).flatten(1), expected)


@pytest.mark.parametrize("name", ALL)
def test_the_map_is_a_grid_that_the_logits_depend_on(name: str) -> None:
    model, x = make(name), images(name)
    stages = timm_stages(model)
    grids = []

    def shifted(a: torch.Tensor) -> torch.Tensor:
        grids.append(a.shape)
        return a + torch.randn_like(a)

    with torch.no_grad():
        logits = model(x)
        difference = (stages(x, features=shifted).logits - logits).abs()
    assert difference.max() > 0.01 * logits.abs().max()
    (shape,) = grids
    assert shape[0] == 3 and shape[2] == shape[3] > 1
    assert stages.layout.prefix == PREFIX.get(name, 0)


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_mean_of_dense_logits_is_the_logits(name: str) -> None:
    model, x = make(name), images(name)
    with torch.no_grad():
        dense = timm_stages(model)(x, dense=lambda a: a).logits
        assert dense.shape[1] > 1
        assert dense.std(1).max() > 1e-4  # positions differ
        assert_close(dense.mean(1), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_dense_logits_of_a_constant_map_are_alike_everywhere(name: str) -> None:
    model, x = make(name), images(name)
    constant = torch.randn(3, 1, 1, 1)

    def edit(a: torch.Tensor) -> torch.Tensor:
        return (constant * torch.linspace(-1, 1, a.shape[1])[:, None, None]).expand_as(a)

    with torch.no_grad():
        stages = timm_stages(model)
        dense = stages(x, dense=edit).logits
        assert dense.shape[::2] == (3, 5)
        assert_close(dense, dense[:, :1].expand_as(dense), rtol=1e-4, atol=1e-5)
        if not stages.layout.prefix:
            once = stages(x, features=edit, at=stages.last).logits
            assert_close(dense[:, 0], once, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_alignmixup_with_itself_is_the_model(name: str) -> None:
    model, x = make(name), images(name)
    stages = timm_stages(model)
    same = torch.arange(3)
    mixer = mixplug.build("alignmix", eps=1e-4, normalize_cost=True, iters=200)
    with torch.no_grad():
        for branch in ("A", "A'"):
            plan = Plan(branch, same, torch.tensor([0.0, 0.3, 1.0]))
            mixed = mixer.apply(stages, x, torch.arange(3), plan)
            assert_close(mixed.logits, model(x), rtol=1e-3, atol=1e-3)
            assert_close(mixed.target, torch.eye(5)[:3])


@pytest.mark.parametrize("branch", ["A", "A'"])
@pytest.mark.parametrize("name", TOKENS)
def test_gradient_of_a_mixed_map_reaches_both_images_of_a_pair(name: str, branch: str) -> None:
    model, x = make(name), images(name, 2).requires_grad_()
    mixer = mixplug.build("alignmix")
    plan = Plan(branch, torch.tensor([1, 0]), torch.tensor([0.4, 0.4]))
    mixed = mixer.apply(timm_stages(model), x, torch.arange(2), plan)
    torch.nn.functional.log_softmax(mixed.logits, -1)[0, 0].backward()
    assert (x.grad.flatten(1).abs().amax(1) > 1e-8).all()
    embedding = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert embedding.weight.grad.abs().max() > 0


@pytest.mark.parametrize("mixer", ["alignmix", "manifold", "multimix", "dense_multimix", "cutmix"])
@pytest.mark.parametrize("name", ["test_convnext", "swin_tiny_patch4_window7_224", *TOKENS])
def test_every_branch_of_a_mixer_gives_finite_gradients(name: str, mixer: str) -> None:
    model, x = make(name).train(), images(name, 4)
    stages = timm_stages(model)
    built = mixplug.build(mixer)
    built.attach(stages)
    branches = set()
    for step in range(16):
        draws = mixplug.sampling.generators(0, step)
        branch = built.sample(x, draws).branch
        if branch not in branches:
            branches.add(branch)
            draws = mixplug.sampling.generators(0, step)
            built(stages, x, torch.arange(4), draws, step=step).loss().backward()
    assert len(branches) == {"alignmix": 4, "cutmix": 1}.get(mixer, 2)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_without_a_classifier_it_says_so() -> None:
    message = r"ResNet needs a classifier, got Identity\. Create"
    with pytest.raises(ValueError, match=message):
        timm_stages(make("test_resnet", num_classes=0))


def test_without_feature_info_a_place_is_found() -> None:
    model = make("test_resnet")
    del model.feature_info
    stages, x = timm_stages(model), torch.randn(4, 3, 64, 64)
    assert stages.last is None
    mixer = mixplug.build("DenseMultiMix", prob=1.0)
    mixer(stages, x, torch.arange(4), mixplug.sampling.generators(0, 0)).loss().backward()
    assert stages.last == "layer4"
