"""Mixers that look before or after they mix, in timm's task and in mm's classifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from hosts.hosting import mm_config
from hosts.looking import AttendedBox, SalientPixels
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from mmpretrain.utils import register_all_modules
from timm.task import ClassificationTask
from torch import Tensor, nn
from torch.testing import assert_close

import mixplug
import mixplug.mm  # enables the key
from mixplug import Mixer, Plan, sampling
from mixplug.hosts.mm.mixing.classifier import Clock, train_with
from mixplug.hosts.timm.task import bind

register_all_modules(init_default_scope=False)
Step = Callable[[Tensor, Tensor], Tensor]
SIZE, SEED = (16, 24), 3
VIT = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def in_timm(mixer: Mixer) -> tuple[nn.Module, Step]:
    """A model, and what a training step of the host makes of a batch."""
    model = timm.create_model("vit_small_patch16_224", img_size=SIZE, num_classes=5, **VIT)
    task = bind(ClassificationTask, mixer)(model, nn.CrossEntropyLoss(), verbose=False)
    task.seed = SEED
    return model, lambda x, y: task(x, y)["loss"]


def in_mm(mixer: Mixer) -> tuple[nn.Module, Step]:
    arch = {"embed_dims": 16, "num_layers": 2, "num_heads": 2, "feedforward_channels": 32}
    backbone = {"type": "VisionTransformer", "arch": arch, "img_size": SIZE, "patch_size": 8}
    head = {"type": "VisionTransformerClsHead", "num_classes": 5, "in_channels": 16}
    model = MODELS.build(
        {"type": "ImageClassifier", "backbone": backbone, "head": head, "_scope_": "mmpretrain"}
    )
    train_with(model, mixer)
    model.clock = Clock(seed=SEED)

    def step(x: Tensor, y: Tensor) -> Tensor:
        return model.loss(x, [DataSample().set_gt_label(label) for label in y])["loss"]

    return model, step


def masks(mixer: Mixer, model: nn.Module, x: Tensor, y: Tensor, plan: Plan) -> Tensor:
    """1 where a pixel is the example's own, (B, H, W)."""
    if isinstance(mixer, AttendedBox):
        mask = torch.ones(len(x), *SIZE)
        mask[:, plan.box[0] : plan.box[1], plan.box[2] : plan.box[3]] = 0
        return mask
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model.eval()(leaf), y, reduction="sum").backward()
    model.zero_grad()
    model.train()
    saliency = leaf.grad.abs().sum(1)
    return (saliency >= saliency[plan.permutation]).float()


def attention_of(model: nn.Module, images: Tensor) -> Tensor:
    """(B, N), from the input of the last block's attention."""
    blocks = model.blocks if hasattr(model, "blocks") else model.backbone.layers
    caught: list[Tensor] = []
    attention = blocks[-1].attn
    handle = attention.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    model(images)
    handle.remove()
    q, k, _ = attention.qkv(caught[0]).view(len(images), -1, 3, 2, 8).unbind(2)
    rows = torch.einsum("bhd,bnhd->bhn", q[:, 0], k) / 8**0.5
    return rows.softmax(-1)[..., 1:].mean(1).detach()


def share_of(mixer: Mixer, model: nn.Module, images: Tensor, mask: Tensor) -> Tensor:
    if isinstance(mixer, SalientPixels):
        return mask.mean((1, 2))
    attention = attention_of(model, images).unflatten(1, (2, 3))
    patches = mask[:, ::8, ::8]  # a patch is whose its first pixel is
    return (attention * patches).sum((1, 2)) / attention.sum((1, 2))


@pytest.mark.parametrize("host", [in_timm, in_mm])
@pytest.mark.parametrize("kind", [SalientPixels, AttendedBox])
def test_a_step_is_that_of_the_measured_share(kind: type[Mixer], host: Callable) -> None:
    mixer = kind()
    model, step = host(mixer)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    x, y = torch.randn(5, 3, *SIZE), torch.tensor([0, 3, 1, 4, 2])
    plan = mixer.sample(x, sampling.generators(SEED, 0))
    mask = masks(mixer, model, x, y, plan)
    images = torch.where(mask[:, None] > 0, x, x[plan.permutation])
    share = share_of(mixer, model, images, mask)
    assert (share - plan.lam).abs().max() > 0.05  # it is not λ
    logits = model(images)
    expected = (
        share * F.cross_entropy(logits, y, reduction="none")
        + (1 - share) * F.cross_entropy(logits, y[plan.permutation], reduction="none")
    ).mean()
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    loss = step(x, y)
    loss.backward()
    assert_close(loss, expected)
    for mine, other in zip(
        [p.grad for p in model.parameters() if p.grad is not None], gradients, strict=True
    ):
        assert_close(mine, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("host", [in_timm, in_mm])
@pytest.mark.parametrize("kind", [SalientPixels, AttendedBox])
def test_with_a_dense_loss(kind: type[Mixer], host: Callable) -> None:
    """The attention is that of the pass, whose last map is split into positions afterwards."""
    seen: list[Any] = []
    mixer = kind(dense=True)
    plain = mixer.apply

    def apply(*args: Any) -> Any:
        seen.append(plain(*args))
        return seen[-1]

    object.__setattr__(mixer, "apply", apply)
    model, step = host(mixer)
    x, y = torch.randn(5, 3, *SIZE), torch.tensor([0, 3, 1, 4, 2])
    step(x, y).backward()
    plan = mixer.sample(x, sampling.generators(SEED, 0))
    mask = masks(mixer, model, x, y, plan)
    images = torch.where(mask[:, None] > 0, x, x[plan.permutation])
    share = share_of(mixer, model, images, mask)[:, None]
    one_hot = torch.eye(5)
    target = share * one_hot[y] + (1 - share) * one_hot[y[plan.permutation]]
    assert seen[0].logits.shape == (5, 6, 5)
    assert_close(seen[0].target, target[:, None].expand(5, 6, 5))


@pytest.mark.parametrize("kind", ["SalientPixels", "AttendedBox"])
@pytest.mark.parametrize("flags", ["--amp --amp-dtype bfloat16", "--torchcompile eager"])
def test_an_epoch_of_train_py(kind: str, flags: str, timm_train: Callable) -> None:
    flags = f"--model test_vit --no-prefetcher {flags}"
    run = timm_train(f"hosts.looking.{kind}", *flags.split())
    assert run.state["step"] == 4
    plain = timm.create_model("test_vit", num_classes=10, img_size=64)
    assert list(run.checkpoint["state_dict"]) == list(plain.state_dict())


def test_a_run_of_mm(tmp_path: Path) -> None:
    config = mm_config(tmp_path, {"type": "hosts.looking.SalientPixels"})
    runner = Runner.from_cfg(config)
    runner.train()
    assert isinstance(runner.model.mixer, mixplug.Mixer) and runner.iter == 4


def test_a_model_without_attention_is_refused_before_training() -> None:
    model = timm.create_model("test_resnet", num_classes=5)
    with pytest.raises(ValueError, match=r"ResNet has no class attention"):
        bind(ClassificationTask, AttendedBox())(model, nn.CrossEntropyLoss(), verbose=False)
