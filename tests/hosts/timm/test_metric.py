"""timm's training script with a metric loss: ``--mixup-impl mixplug.metrix``."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hosts.hosting import HERE, TIMM_FLAGS, TimmRun
from hosts.timm.test_stages import images, make
from torch import nn
from torch.testing import assert_close

from mixplug import sampling
from mixplug.hosts.timm.stages import timm_stages
from mixplug.mixers.building import build_mixer
from mixplug.mixers.metric import _features

# The flags that it meets, shared out among levels and losses to spare runs.
RUNS = {
    "input": ("--amp --amp-dtype bfloat16", {"loss": "Contrastive", "level": "input"}),
    "feature": ("--torchcompile eager --model-ema", {"loss": "MultiSimilarity"}),
    "embed": ("--grad-accum-steps 2", {"loss": "ProxyAnchor", "level": "embed"}),
}


@pytest.mark.parametrize("name", RUNS)
def test_an_epoch_of_train_py(name: str, timm_train: Callable, seen: list[dict]) -> None:
    flags, settings = RUNS[name]
    run: TimmRun = timm_train("mixplug.metrix", *flags.split(), settings=settings)
    assert len(seen) == 4 and not any(call["soft"] for call in seen)
    assert math.isfinite(run.column("train_loss")[0])
    plain = timm.create_model("test_resnet", num_classes=10)
    assert list(run.checkpoint["state_dict"]) == list(plain.state_dict())
    assert list(run.state["learned"]) == (["mixup.loss.proxies"] if name == "embed" else [])


def test_a_network_learns_and_the_probe_beside_it(timm_train: Callable) -> None:
    """Untrained it is right once in ten times."""
    flags = ["--epochs", "12", "-b", "16", "--lr", "5e-3", "--smoothing", "0"]
    run: TimmRun = timm_train("mixplug.MultiSimilarity", *flags)
    assert run.column("eval_top1")[-1] > 50


def test_two_processes_take_one_level(image_folder: Path, tmp_path: Path) -> None:
    """At 'input' a step has two passes through DDP before the one backward."""
    flags = ["--data-dir", str(image_folder), *TIMM_FLAGS, "--epochs", "2"]
    out = ["--output", str(tmp_path), "--experiment", "run"]
    impl = ["--mixup-impl", "mixplug.metrix", "--mixup-args", "loss=Contrastive"]
    impl += ["level=('input','feature','embed')"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "timm_hooks.train", str(HERE / "train.py"), *flags, *out, *impl]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert TimmRun(tmp_path / "run").state["step"] == 4


def test_a_wrong_setting_is_said_before_training(timm_train: Callable, capsys) -> None:
    with pytest.raises(SystemExit):
        timm_train("mixplug.metrixx")
    assert "Did you mean 'Metrix'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_efficientnet",
        "test_convnext",
        "swin_tiny_patch4_window7_224",
        "vit_small_patch16_224-token",
        "vit_small_patch16_224-regs-avg",
    ],
)
def test_the_tail_of_a_model_is_its_own(name: str) -> None:
    """From the kept map on: the embedding, the same for a model that was trained a step."""
    model = make(name)
    stages = timm_stages(model)
    mixer = build_mixer("Metrix", loss="MultiSimilarity", level="feature")
    mixer.attach(stages)
    x = images(name, 4)
    model.train()
    mixer(stages, x, torch.tensor([0, 0, 1, 1]), sampling.generators(0, 0)).loss().backward()
    trunk = [p for n, p in model.named_parameters() if not n.startswith(("head.fc", "fc", "mixup"))]
    assert sum(float(p.grad.abs().sum()) for p in trunk if p.grad is not None) > 0
    assert model.last_map is None
    model.eval()
    with torch.no_grad():
        embedding = stages(x).embedding
        kept, embed = stages.tail.take()
        assert_close(embed(kept), embedding)
    assert isinstance(model, nn.Module) and model.last_map is None


@pytest.mark.parametrize(
    ("name", "keys", "closed"),
    [
        ("resnet18", {}, True),
        ("resnet18", {"global_pool": "max"}, False),
        ("resnet18", {"drop_rate": 0.3}, False),
        ("efficientnet_b0", {"drop_rate": 0}, True),
        ("convnext_atto", {}, False),  # a norm follows pooling
        ("swin_tiny_patch4_window7_224", {}, True),
        ("vit_tiny_patch16_224", {}, False),  # a class token
    ],
)
def test_average_pooling_of_timms_models_is_seen(name: str, keys: dict, closed: bool) -> None:
    """At level 'feature' such a model needs no mixed maps."""
    model = timm.create_model(name, num_classes=4, **keys).train()
    stages = timm_stages(model)
    build_mixer("Metrix", loss="Contrastive").attach(stages)
    x = torch.randn(2, 3, 224, 224)
    out = stages(x)
    maps, function = _features(stages, x, out.embedding)
    assert getattr(function, "commutes", False) == closed
    if closed:
        assert_close(function(maps), out.embedding, atol=1e-5, rtol=1e-5)
