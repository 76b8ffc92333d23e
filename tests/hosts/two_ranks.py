"""What one of two processes does: 50 steps of every mixer under DDP, in timm's task and in mm's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hosts.hosting import mm_classifier, mm_config, variants
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from mmpretrain.utils import register_all_modules
from timm.models.resnet import BasicBlock, ResNet
from timm.task import ClassificationTask
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import mixplug
import mixplug.mm  # enables the key
from mixplug.hosts.mm.mixing.classifier import Clock, train_with
from mixplug.hosts.timm.task import bind

STEPS = 50
BATCH = 4


def work(rank: int, out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """On rank ``rank`` of 2."""
    results: dict[tuple[str, str], dict[str, Any]] = {}
    for name, settings in variants().items():
        torch.manual_seed(100 + rank)  # as timm's train.py does
        results["timm", name] = under_timm(build(name, settings, 16))
        results["mm", name] = under_mm(build(name, settings, 8))
    results["runner", "multimix"] = under_runner(out / "work")
    return results


def build(name: str, settings: dict[str, Any], side: int) -> mixplug.Mixer:
    shape = {"image_shape": (3, side, side), "reconstruction_weight": 1e-3}
    return mixplug.build(name.partition("-")[0], **{**settings, **(shape if settings else {})})


def under_timm(mixer: mixplug.Mixer) -> dict[str, Any]:
    widths = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 16), "output_stride": 8}
    model = ResNet(BasicBlock, num_classes=5, **widths)
    task = bind(ClassificationTask, mixer)(model, nn.CrossEntropyLoss(), verbose=False)
    task.prepare_distributed()

    def loss(x: Tensor, y: Tensor, step: int) -> Tensor:
        task.step = step
        return task(x, y)["loss"]

    return {"seed": task.seed, **train(task.trainable_module, mixer, loss, task.seed, 16)}


def under_mm(mixer: mixplug.Mixer) -> dict[str, Any]:
    model = MODELS.build({**mm_classifier(), "_scope_": "mmpretrain"})
    train_with(model, mixer)
    wrapped = MMDistributedDataParallel(model)

    def loss(x: Tensor, y: Tensor, step: int) -> Tensor:
        model.clock = Clock(seed=7, step=step)
        samples = [DataSample().set_gt_label(label) for label in y]
        return wrapped(x, samples, mode="loss")["loss"]

    return {"seed": 7, **train(wrapped, mixer, loss, 7, 8)}


def under_runner(work_dir: Path) -> dict[str, Any]:
    """mmengine's own loop, sampler and wrapper."""
    register_all_modules(init_default_scope=False)
    config = mm_config(work_dir, {"type": "MultiMix"}, randomness={"seed": None})
    os.environ["LOCAL_RANK"] = str(dist.get_rank())  # mmengine reads it, for its device
    config.launcher = "pytorch"
    config.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
    config.experiment_name = "two_ranks"
    runner = Runner.from_cfg(config)
    plans = recorded(runner.model.module.mixer)
    runner.train()
    return {
        "plans": plans,
        "seed": runner.seed,
        "unused": runner.model.find_unused_parameters,
        "parameters": flat(runner.model.parameters()),
        "class": type(runner.model).__name__,
    }


def train(
    model: DistributedDataParallel,
    mixer: mixplug.Mixer,
    loss: Callable[[Tensor, Tensor, int], Tensor],
    seed: int,
    side: int,
) -> dict[str, Any]:
    """50 steps, with what the test is to compare between the ranks."""
    model.train()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    before = flat(parameters)
    source = torch.Generator().manual_seed(dist.get_rank())
    gradients, averaged, unlike, used = [], {}, {}, []
    plans = recorded(mixer)
    for step in range(STEPS):
        x = torch.randn(BATCH, 3, side, side, generator=source)
        y = torch.randint(5, (BATCH,), generator=source)
        draws = mixplug.sampling.generators(seed, step)
        branch = type(mixer).sample(mixer, x, draws).branch  # what both ranks are about to take
        if branch not in averaged:
            with model.no_sync():
                loss(x, y, step).backward()
            own = flat(p.grad for p in parameters)
            mean = own.clone()
            dist.all_reduce(mean)
            optimizer.zero_grad()
        loss(x, y, step).backward()
        used.append(plans[-1])
        gradient = flat(p.grad for p in parameters)  # fails if there is one without
        if branch not in averaged:
            averaged[branch] = torch.allclose(gradient, mean / 2, rtol=1e-3, atol=1e-6)
            unlike[branch] = not torch.allclose(own, mean / 2, rtol=1e-3, atol=1e-6)
        gradients.append(gradient.double().norm().item())
        optimizer.step()
        optimizer.zero_grad()
    after = flat(parameters)
    return {
        "plans": used,
        "gradients": gradients,
        "averaged": averaged,
        "unlike": unlike,
        "parameters": after,
        "moved": not torch.equal(before, after),
        "unused": model.find_unused_parameters,
    }


def recorded(mixer: mixplug.Mixer) -> list[mixplug.Plan]:
    """A list that gets every plan of the mixer from now on."""
    plans: list[mixplug.Plan] = []
    plain = mixer.sample

    def sample(x: Tensor, generators: mixplug.sampling.Generators) -> mixplug.Plan:
        plans.append(plain(x, generators))
        return plans[-1]

    object.__setattr__(mixer, "sample", sample)
    return plans


def flat(tensors: Any) -> Tensor:
    """One vector of all."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
