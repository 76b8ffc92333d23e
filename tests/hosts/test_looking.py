"""Mixers that look before or after they mix, in timm's task and in mm's classifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from hosts.hosting import HERE, mm_classifier, mm_config
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


def probing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on every step is probed before and after; a list that grows with each."""
    plain, probes = mixplug.Mixer.__call__, []

    def call(self: Mixer, stages: mixplug.Stages, x: Tensor, y: Tensor, *args: Any) -> Any:
        stages.probe(x, y, {"input_grad", "logits", "map"})
        mixed = plain(self, stages, x, y, *args)
        stages.probe(x, want={"logits"})
        probes.append(len(x))
        return mixed

    monkeypatch.setattr(mixplug.Mixer, "__call__", call)
    return probes


FLAGS = [
    "--model test_resnet --model-kwargs drop_rate=0.5 --val-every 2",
    "--model test_resnet --amp --amp-dtype bfloat16 --grad-accum-steps 2 --model-ema",
    "--model test_vit --torchcompile eager",
]


@pytest.mark.parametrize("script", [HERE / "train.py"])
@pytest.mark.parametrize("flags", FLAGS)
def test_a_run_of_timm_with_probes_is_the_one_without(
    flags: str, timm_train: Callable, seen: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--epochs", 2, "--mixup-off-epoch", 1, *flags.split())
    plain = timm_train("mixplug.mixup", *flags)
    probes = probing(monkeypatch)
    probed = timm_train("mixplug.mixup", *flags)
    assert len(probes) == 8
    assert [(s["epoch"], s["soft"]) for s in seen] == 2 * ([(0, True)] * 4 + [(1, False)] * 4)
    assert plain.column("train_loss") == probed.column("train_loss")
    for name, value in plain.checkpoint["state_dict"].items():
        assert torch.equal(probed.checkpoint["state_dict"][name], value), name


def test_a_run_of_mm_with_probes_is_the_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for folder in ("plain", "probed"):
        mixup = {"type": "AlignMixup", "off_epoch": 1}
        runner = Runner.from_cfg(mm_config(tmp_path / folder, mixup, epochs=2))
        probes = probing(monkeypatch) if folder == "probed" else []
        runner.train()
        states.append(runner.model.state_dict())
    assert len(probes) == 8
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


def test_pixels_of_mm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    plain = mixplug.Mixer.__call__

    def call(self: Mixer, stages: mixplug.Stages, x: Tensor, *args: Any) -> Any:
        found.append((x, *stages.pixels))
        return plain(self, stages, x, *args)

    monkeypatch.setattr(mixplug.Mixer, "__call__", call)
    Runner.from_cfg(mm_config(tmp_path, {"type": "InputMixup"})).train()
    x, mean, std = found[0]
    assert_close(mean, torch.full((3, 1, 1), 78 / 255))
    assert_close(std, torch.full((3, 1, 1), 85 / 255))
    images = x * std + mean
    assert_close(images.min(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert 0.9 < images.max() <= 1 + 1e-6


def test_pixels_of_mm_that_its_pipeline_normalizes() -> None:
    model = MODELS.build({**mm_classifier(data_preprocessor={}), "_scope_": "mmpretrain"})
    train_with(model, mixplug.build("mixup"))
    message = (
        r"It is not known how the images were normalized: ClsDataPreprocessor has no mean\. "
        r"Normalize in the model instead of the pipeline: data_preprocessor=dict\(mean=\[\.\.\.\]"
    )
    with pytest.raises(ValueError, match=message):
        _ = model.stages.pixels


def test_an_off_epoch_in_a_loop_of_ones_own_over_an_mm_model() -> None:
    model = MODELS.build({**mm_classifier(), "_scope_": "mmpretrain"})
    train_with(model, mixplug.build("mixup", off_epoch=1))
    x, samples = torch.randn(4, 3, 8, 8), [DataSample().set_gt_label(k) for k in range(4)]
    message = (
        r"InputMixup has off_epoch=1, but the epoch is not known\. mmengine's Runner sets it; in "
        r"your own loop set model\.clock\.epoch, counted from 0"
    )
    with pytest.raises(ValueError, match=message):
        model.loss(x, samples)
    model.clock.epoch = 1
    model.loss(x, samples)


def test_a_model_without_attention_is_refused_before_training() -> None:
    model = timm.create_model("test_resnet", num_classes=5)
    with pytest.raises(ValueError, match=r"ResNet has no class attention"):
        bind(ClassificationTask, AttendedBox())(model, nn.CrossEntropyLoss(), verbose=False)
