"""The pre-activation networks against their definition, alone and inside timm and mmpretrain."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.testing import assert_close

import mixplug.hosts.mm.models.backbones
import mixplug.models.small.timm_entrypoints  # noqa: F401
from mixplug.models import PreActResNet, WideResNet, preact_resnet18, wide_resnet16_8
from mixplug.models.small.preact import PreActBlock


def small(**options: object) -> WideResNet:
    """WRN-10-1, which uses the same code at a small width."""
    return WideResNet(depth=10, widen_factor=1, **options)


def test_they_are_registered_in_timm_by_a_call() -> None:
    code = (
        "import mixplug, timm; known = lambda: timm.is_model('preact_resnet18'); before = known(); "
        "mixplug.models.register_in_timm(); mixplug.models.register_in_timm(); "
        "print(before, known(), timm.is_model('wide_resnet16_8'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "True"]


def test_importing_the_models_loads_neither_timm_nor_mm() -> None:
    hosts = {"timm", "mmengine", "mmpretrain", "torchvision"}
    code = f"import mixplug.models, sys; print({hosts} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("build", "options", "side", "grid"),
    [
        (preact_resnet18, {}, 32, 4),
        (preact_resnet18, {"last_stride": 1}, 32, 8),
        (preact_resnet18, {"stem_stride": 2}, 64, 4),
        (wide_resnet16_8, {}, 32, 8),
        (wide_resnet16_8, {"stem_stride": 2, "last_stride": 1}, 32, 8),
    ],
)
def test_the_last_map_has_512_channels_on_the_documented_grid(
    build: Callable[..., nn.Module], options: dict[str, int], side: int, grid: int
) -> None:
    model = build(num_classes=7, in_chans=1, **options).eval()
    seen: list[Tensor] = []
    model.get_submodule("act").register_forward_hook(lambda m, i, out: seen.append(out))
    with torch.no_grad():
        logits = model(torch.randn(1, 1, side, side))
    assert seen[0].shape == (1, 512, grid, grid)
    assert logits.shape == (1, 7)
    assert seen[0].amin() == 0 and model.feature_info[-1]["reduction"] == side // grid


def block_count(c: int, d: int) -> int:
    """Parameters of two norms, two 3x3 convolutions and, if the width changes, a projection."""
    return 2 * c + 9 * c * d + 2 * d + 9 * d * d + (c * d if c != d else 0)


def test_parameter_counts_by_hand() -> None:
    resnet = 3 * 64 * 9 + 2 * block_count(64, 64)
    resnet += sum(block_count(d // 2, d) + block_count(d, d) for d in (128, 256, 512))
    wide = 3 * 16 * 9
    steps = ((16, 128), (128, 256), (256, 512))
    wide += sum(block_count(c, d) + block_count(d, d) for c, d in steps)
    top = 2 * 512 + 512 * 10 + 10  # final norm and classifier
    counts = [sum(p.numel() for p in m().parameters()) for m in (preact_resnet18, wide_resnet16_8)]
    assert counts == [resnet + top, wide + top] == [11_172_170, 10_961_370]


def naive_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    unit = (x - mean) / (var + norm.eps) ** 0.5
    return unit * norm.weight[:, None, None] + norm.bias[:, None, None]


def naive_block(x: Tensor, block: PreActBlock, stride: int) -> Tensor:
    a = naive_norm(x, block.norm1).clamp(min=0)
    h = F.conv2d(a, block.conv1.weight, stride=stride, padding=1)
    h = F.conv2d(naive_norm(h, block.norm2).clamp(min=0), block.conv2.weight, padding=1)
    return h + (x if block.shortcut is None else F.conv2d(a, block.shortcut.weight, stride=stride))


def randomize(module: nn.Module) -> None:
    """Randomize the norms, so that a missing or swapped norm changes the output."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.5, 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "stride"), [(3, 1), (5, 1), (5, 2), (3, 2)])
def test_block_is_the_formula_with_gradients(d: int, stride: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block = PreActBlock(3, d, stride).to(dtype)
    randomize(block)
    x = torch.randn(4, 3, 6, 6, dtype=dtype, requires_grad=True)
    leaves = [x, *block.parameters()]
    ours, naive = block(x), naive_block(x, block, stride)
    assert_close(ours, naive)
    seed = torch.randn_like(ours)
    grads = (torch.autograd.grad(y, leaves, seed) for y in (ours, naive))
    tol = 1e-4 if dtype == torch.float32 else 1e-10
    for a, b in zip(*grads, strict=True):
        assert_close(a, b, rtol=tol, atol=tol)


def test_a_stage_with_silent_branches_is_the_identity() -> None:
    stage = preact_resnet18().stages[0]
    x = torch.randn(2, 64, 5, 5)
    before = x.clone()
    assert not torch.equal(stage(x), x)
    for block in stage:
        nn.init.zeros_(block.conv2.weight)
    assert torch.equal(stage(x), x) and torch.equal(x, before)


def test_the_trunk_ends_in_norm_and_relu_and_starts_with_a_bare_convolution() -> None:
    model, x = small(), torch.randn(3, 3, 8, 8)
    randomize(model)
    expected = F.conv2d(x, model.conv1.weight, padding=1)
    for stage, stride in zip(model.stages, (1, 2, 2), strict=True):
        expected = naive_block(expected, stage[0], stride)
    expected = naive_norm(expected, model.norm).clamp(min=0)
    assert_close(model.forward_features(x), expected, rtol=1e-4, atol=1e-4)
    logits = expected.mean((2, 3)) @ model.fc.weight.T + model.fc.bias
    assert_close(model(x), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_gradient_is_finite_and_not_zero(dtype: torch.dtype) -> None:
    model = small().to(dtype)
    logits = model(torch.randn(3, 3, 16, 16, dtype=dtype))
    F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


def test_convolutions_have_he_initialization_and_norms_are_ones() -> None:
    conv = preact_resnet18().stages[3][0].conv1  # 256 -> 512: fan_in and fan_out differ
    assert_close(conv.weight.std().item(), (2 / (512 * 9)) ** 0.5, rtol=0.01, atol=0)
    norms = [m for m in small().modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in norms) and len(norms) == 7


def test_head_options() -> None:
    model, x = small(num_classes=0).eval(), torch.randn(2, 3, 8, 8)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert_close(model(x), model.forward_features(x).mean((2, 3)))
    model.double().reset_classifier(5)
    assert model(x.double()).shape == (2, 5) and model.fc.weight.dtype == torch.float64
    model.reset_classifier(0, "")
    assert torch.equal(model(x.double()), model.forward_features(x.double()))


def test_drop_rate_acts_on_the_embedding_in_training_only() -> None:
    model, a = small(drop_rate=0.5), torch.ones(1, 64, 2, 2)
    assert set(model.forward_head(a, pre_logits=True).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(model.eval().forward_head(a, pre_logits=True), torch.ones(1, 64))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: PreActResNet(depth=50), r"needs a depth in \[18\], got 50"),
        (lambda: WideResNet(depth=17), r"needs a depth in \[10, 16, 22, 28, 40\], got 17"),
        (lambda: WideResNet(widen_factor=0), r"widen_factor must be an integer >= 1, got 0"),
        (lambda: small(stem_stride=4), r"stem_stride must be one of \(1, 2\), got 4"),
        (lambda: small(last_stride=0), r"last_stride must be one of \(1, 2\), got 0"),
        (lambda: small(drop_rate=1.0), r"must be a fraction in \[0, 1\), got 1\.0"),
        (lambda: small(global_pool="max"), r"global_pool must be one of \('avg', ''\), got 'max'"),
        (lambda: small(global_pool=""), r"got num_classes=10 with global_pool=''"),
        (lambda: small().set_grad_checkpointing(True), r"enable must be False, got True"),
    ],
)
def test_wrong_values_say_what_is_allowed(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.parametrize("name", ["preact_resnet18", "wide_resnet16_8"])
def test_timm_builds_and_its_parts_agree(name: str) -> None:
    # options of timm's train.py without flags, and with --num-classes and --drop
    options = dict.fromkeys(("drop_path_rate", "drop_block_rate", "global_pool", "bn_eps"))
    model = timm.create_model(name, in_chans=1, num_classes=6, drop_rate=0.1, **options).eval()
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        a = model.forward_features(x)
        e = model.forward_head(a, pre_logits=True)
        assert torch.equal(model(x), model.forward_head(a))
        assert torch.equal(model(x), model.get_classifier()(e))
        assert_close(e, a.mean((2, 3)))
        maps = timm.create_model(name, features_only=True, num_classes=0).eval()
        shapes = [tuple(m.shape[1:3]) for m in maps(torch.randn(1, 3, 32, 32))]
    assert shapes == [(i["num_chs"], 32 // i["reduction"]) for i in model.feature_info]
    assert model.num_features == model.head_hidden_size == e.shape[1]
    assert model.drop_rate == 0.1 and model.pretrained_cfg["input_size"] == (3, 32, 32)


def test_timm_rejects_unsupported_options_and_loads_own_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No weights are published for preact_resnet18"):
        timm.create_model("preact_resnet18", pretrained=True)
    with pytest.raises(ValueError, match=r"drop_path_rate: it must be 0, got 0\.1"):
        timm.create_model("preact_resnet18", drop_path_rate=0.1)
    source = preact_resnet18(num_classes=10)
    torch.save(source.state_dict(), tmp_path / "own.pth")
    own = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "own.pth")}}
    model = timm.create_model("preact_resnet18", **own)
    assert torch.equal(model.fc.weight, source.fc.weight)
    finetuned = timm.create_model("preact_resnet18", num_classes=3, in_chans=1, **own)
    assert torch.equal(finetuned.stages[3][1].conv2.weight, source.stages[3][1].conv2.weight)
    assert finetuned.fc.weight.shape == (3, 512)


MM = [(PreActResNet, {}), (WideResNet, {"depth": 10, "widen_factor": 2, "last_stride": 1})]


@pytest.mark.parametrize(("plain", "options"), MM)
def test_image_classifier_shares_weights_and_loss_with_the_plain_model(
    plain: type[nn.Module], options: dict[str, int], tmp_path: Path
) -> None:
    model, x = plain(num_classes=4, **options), torch.randn(3, 3, 16, 16)
    trunk = {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}
    torch.save(trunk, tmp_path / "trunk.pth")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "trunk.pth")}
    backbone = {"type": f"mixplug.{plain.__name__}", "init_cfg": init, **options}
    head = {"type": "LinearClsHead", "num_classes": 4, "in_channels": model.num_features}
    cfg = {"backbone": backbone, "neck": {"type": "GlobalAveragePooling"}, "head": head}
    host = MODELS.build({"type": "ImageClassifier", **cfg})
    host.init_weights()
    assert list(host.backbone.state_dict()) == list(trunk)
    host.head.fc.load_state_dict(model.fc.state_dict())
    loss = host(x, [DataSample().set_gt_label(i) for i in (0, 3, 1)], mode="loss")["loss"]
    assert_close(loss, F.cross_entropy(model(x), torch.tensor([0, 3, 1])))
    assert [tuple(a.shape[:2]) for a in host.backbone(x)] == [(3, model.num_features)]
    with pytest.raises(ValueError, match=f"{plain.__name__} needs a depth in .*, got 17"):
        type(host.backbone)(depth=17)
