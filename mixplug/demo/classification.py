"""``mixplug demo classification``: train one small network on real digits in five ways."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mixplug
from mixplug import sampling
from mixplug.data.digits import NUM_CLASSES, digits
from mixplug.functional.calibration import expected_calibration_error
from mixplug.models import WideResNet

BATCH = 64
FEATURES = "stages.2.0"  # before the last block
# n = 256 instead of the default 1000, because a batch has only 64 images of 10 classes.
METHODS: dict[str, dict | None] = {
    "no mixup": None,
    "InputMixup": {"type": "InputMixup"},
    "AlignMixup": {"type": "AlignMixup"},
    "MultiMix": {"type": "MultiMix", "n": 256},
    "DenseMultiMix": {"type": "DenseMultiMix", "n": 256},
}


@dataclass
class Run:
    """One network in training."""

    method: str
    seed: int
    model: nn.Module
    step: Callable[[Tensor, Tensor, int], Tensor]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    steps: int = 0
    seconds: list[float] = field(default_factory=list)


def network() -> WideResNet:
    """WideResNet with 76k parameters; for the digits' own 8x8 pixels, the last map is 64x4x4."""
    return WideResNet(10, 1, num_classes=NUM_CLASSES, in_chans=1, last_stride=1)


def start(method: str, seed: int, total_steps: int) -> Run:
    """The network for a seed, with the same weights for every method, and its training step."""
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=total_steps)
    spec = METHODS[method]

    def plain(x: Tensor, y: Tensor, step: int) -> Tensor:
        return F.cross_entropy(model(x), y)

    if spec is None:
        return Run(method, seed, model, plain, optimizer, schedule)
    stages = mixplug.Stages(model, features=FEATURES, classifier="fc", last="act")
    mixer = mixplug.build(spec, kind="mixer")

    def mixed(x: Tensor, y: Tensor, step: int) -> Tensor:
        return mixer(stages, x, y, sampling.generators(seed, step), step=step).loss()

    return Run(method, seed, model, mixed, optimizer, schedule)


def train_epoch(run: Run, x: Tensor, y: Tensor, epoch: int) -> None:
    """One pass over the data, in an order that depends on seed and epoch alone."""
    run.model.train()
    order = sampling.permutation(len(x), sampling.generators(run.seed, epoch, rank=1).local)
    for index in order.split(BATCH):
        begin = time.perf_counter()
        run.optimizer.zero_grad()
        run.step(x[index], y[index], run.steps).backward()
        run.optimizer.step()
        run.schedule.step()
        run.steps += 1
        run.seconds.append(time.perf_counter() - begin)


@torch.no_grad()
def probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """Softmax of clean images, (B, K)."""
    model.eval()
    return model(x).softmax(-1)


@dataclass(frozen=True)
class Result:
    """Results of a method over all seeds.

    Attributes:
        method: name of the method.
        accuracy: percent, one per seed.
        ece: expected calibration error in percent, one per seed.
        ms_per_step: median over all steps.
        probabilities: (seeds * B, K) of the test images.
        labels: (seeds * B,) classes of the test images.
    """

    method: str
    accuracy: list[float]
    ece: list[float]
    ms_per_step: float
    probabilities: Tensor
    labels: Tensor


def run_all(
    seeds: Sequence[int], epochs: int, tick: Callable[[str], None]
) -> tuple[list[Result], dict[str, nn.Module]]:
    """Train with every method and seed; methods alternate by epoch, so their times are comparable.

    Args:
        seeds: seeds of initial weights, order of data, and mixing.
        epochs: number of epochs of each network.
        tick: function that is called with the method after each epoch.

    Returns:
        Results, and the networks of the first seed.
    """
    x, y = digits("train", size=8)
    test_x, test_y = digits("test", size=8)
    total = epochs * -(-len(x) // BATCH)
    runs: dict[str, list[Run]] = {method: [] for method in METHODS}
    for seed in seeds:
        row = [start(method, seed, total) for method in METHODS]
        for epoch in range(epochs):
            for run in row:
                train_epoch(run, x, y, epoch)
                tick(run.method)
        for run in row:
            runs[run.method].append(run)
    results = [summarize(method, done, test_x, test_y) for method, done in runs.items()]
    return results, {method: done[0].model for method, done in runs.items()}


def summarize(method: str, runs: Sequence[Run], x: Tensor, y: Tensor) -> Result:
    """Accuracy, calibration and time of the runs of a method."""
    predicted = [probabilities(run.model, x) for run in runs]
    return Result(
        method,
        [100 * float((p.argmax(-1) == y).double().mean()) for p in predicted],
        [100 * float(expected_calibration_error(p, y)) for p in predicted],
        1e3 * statistics.median(second for run in runs for second in run.seconds),
        torch.cat(predicted),
        y.repeat(len(runs)),
    )


def checkpoint_of(folder: Path, method: str) -> Path:
    """Path of the network of a method's first seed."""
    return folder / f"demo_{method.replace(' ', '-').lower()}.pth"


def save_networks(models: Mapping[str, nn.Module], folder: Path) -> None:
    """Save the networks of the first seed, one file for each method."""
    for method, model in models.items():
        torch.save(model.state_dict(), checkpoint_of(folder, method))


def save(results: Sequence[Result], path: Path) -> None:
    """Write the results as JSON."""
    table = [
        {
            "method": r.method,
            "accuracy_percent": r.accuracy,
            "ece_percent": r.ece,
            "ms_per_step": r.ms_per_step,
        }
        for r in results
    ]
    path.write_text(json.dumps(table, indent=2) + "\n")
