"""``mixplug demo metric``: one small network, two losses, and retrieval of unseen digits."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.data.retrieval import RetrievalSet, retrieval_set
from mixplug.data.samplers import MPerClassSampler
from mixplug.losses.base import MetricLoss
from mixplug.losses.building import build_loss
from mixplug.metrics.retrieval import RecallAtK
from mixplug.models import WideResNet
from mixplug.models.heads.embedding import EmbeddingHead
from mixplug.optional import optional
from mixplug.viz.embedding import flat_map, scatter

KS = (1, 2, 4, 8)
M, BATCH = 10, 50  # ten examples of each of five classes
WIDTH = 32
RATE = 2e-3
LOSSES = ("Contrastive", "MultiSimilarity")
LEVELS = (None, "input", "feature", "embed")
Row = tuple[str, str | None]
ROWS: tuple[Row, ...] = tuple((loss, level) for loss in LOSSES for level in LEVELS)
# Rows whose embeddings the figure shows.
SHOWN: tuple[Row, Row] = (("MultiSimilarity", None), ("MultiSimilarity", "feature"))
_POINTS = 80  # points per class on the maps


class Embedder(nn.Module):
    """Embedding network with 77k parameters; for 8x8 pixels, the last map is 64x4x4."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = WideResNet(10, 1, num_classes=0, in_chans=1, last_stride=1, global_pool="")
        self.head = EmbeddingHead(64, WIDTH, "avg+max")

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 8, 8) to embeddings (B, 32) of length 1."""
        return self.head(self.trunk(x))


@dataclass
class Run:
    """One network in training."""

    row: Row
    seed: int
    model: Embedder
    loss: MetricLoss
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    steps: int = 0
    seconds: list[float] = field(default_factory=list)


def start(row: Row, seed: int, total_steps: int) -> Run:
    """The network for a seed, with the same weights for every row, and its loss."""
    torch.manual_seed(seed)
    model = Embedder()
    name, level = row
    plain = {"type": name}
    loss = build_loss(plain if level is None else {"type": "Metrix", "loss": plain, "level": level})
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total_steps)
    return Run(row, seed, model, loss, optimizer, schedule)


def batches(labels: Tensor, seed: int, epoch: int) -> Sequence[Tensor]:
    """Indices (B,) of an epoch's batches, which depend on seed and epoch alone."""
    sampler = MPerClassSampler(labels, M, BATCH, seed)
    sampler.set_epoch(epoch)
    return torch.tensor(list(sampler)).split(BATCH)


def train_epoch(run: Run, x: Tensor, y: Tensor, epoch: int) -> None:
    """One pass over the data."""
    run.model.train()
    for index in batches(y, run.seed, epoch):
        begin = time.perf_counter()
        maps = run.model.trunk(x[index])
        loss = run.loss.forward_in_host(
            run.model.head(maps),
            y[index],
            features=(maps, run.model.head),
            inputs=(x[index], run.model),
            generators=sampling.generators(run.seed, run.steps),
        )
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        run.schedule.step()
        run.steps += 1
        run.seconds.append(time.perf_counter() - begin)


@torch.no_grad()
def embed(model: nn.Module, x: Tensor) -> Tensor:
    """Embeddings (B, D) of clean images."""
    model.eval()
    return model(x)


def recall(embeddings: Tensor, labels: Tensor) -> dict[int, float]:
    """Recall@K in percent; each image is the query once, with all others as gallery."""
    # torch's search gives the same numbers with and without faiss installed
    metrics = RecallAtK(KS, scores=("recall",), backend="torch", device="cpu")
    metrics.update(embeddings, labels)
    found = metrics.compute()
    return {k: found[f"recall@{k}"] for k in KS}


@dataclass(frozen=True)
class Result:
    """Results of a row over all seeds.

    Attributes:
        row: the loss, and the level of Metrix or None.
        recall: percent for each K, one per seed.
        ms_per_step: median over all steps.
    """

    row: Row
    recall: dict[int, list[float]]
    ms_per_step: float


def run_all(
    seeds: Sequence[int], epochs: int, tick: Callable[[Row], None]
) -> tuple[list[Result], dict[Row, nn.Module]]:
    """Train every row with every seed; rows alternate by epoch, so their times are comparable.

    Args:
        seeds: seeds of initial weights, batches, and mixing.
        epochs: number of epochs of each network.
        tick: function that is called with the row after each epoch.

    Returns:
        Results, and the networks of the first seed.
    """
    known, held_out = data("train"), data("test")
    x, y = tensors(known)
    total = epochs * len(batches(y, 0, 0))
    runs: dict[Row, list[Run]] = {row: [] for row in ROWS}
    for seed in seeds:
        some = [start(row, seed, total) for row in ROWS]
        for epoch in range(epochs):
            for run in some:
                train_epoch(run, x, y, epoch)
                tick(run.row)
        for run in some:
            runs[run.row].append(run)
    results = [summarize(row, done, *tensors(held_out)) for row, done in runs.items()]
    return results, {row: done[0].model for row, done in runs.items()}


def data(split: str) -> RetrievalSet:
    """Digits 0 to 4 for 'train', 5 to 9 for 'test', so no class is in both."""
    return retrieval_set("digits", split=split, size=8)


def tensors(found: RetrievalSet) -> tuple[Tensor, Tensor]:
    """Images (B, 1, 8, 8) and classes (B,)."""
    assert found.images is not None  # always set for digits
    return found.images, torch.tensor(found.labels)


def summarize(row: Row, runs: Sequence[Run], x: Tensor, y: Tensor) -> Result:
    """Recall and time of the runs of a row."""
    scores = [recall(embed(run.model, x), y) for run in runs]
    return Result(
        row,
        {k: [score[k] for score in scores] for k in KS},
        1e3 * statistics.median(second for run in runs for second in run.seconds),
    )


def title(row: Row) -> str:
    """Title of a row in the notation of the thesis."""
    loss, level = row
    return loss if level is None else f"{loss} + Metrix/{level}"


def save(results: Sequence[Result], path: Path) -> None:
    """Write the results as JSON."""
    table = [
        {
            "loss": r.row[0],
            "metrix": r.row[1],
            "recall_percent": {str(k): values for k, values in r.recall.items()},
            "ms_per_step": r.ms_per_step,
        }
        for r in results
    ]
    path.write_text(json.dumps(table, indent=2) + "\n")


def figure(results: Sequence[Result], models: Mapping[Row, nn.Module], path: Path) -> None:
    """Draw and save Recall@1 of every seed, and maps of the test classes for two of the networks.

    Args:
        results: results of all rows.
        models: networks of the first seed.
        path: path of the PNG.
    """
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    fig = plt.figure(figsize=(14, 4.8), layout="constrained")
    left, *right = fig.subplots(1, 3, width_ratios=(1.15, 1, 1))
    for place, result in enumerate(results):
        values = result.recall[1]
        color = "#0072B2" if result.row[1] else "0.35"
        left.plot(values, [place] * len(values), "o", color=color, markersize=5, alpha=0.6)
        left.plot(statistics.mean(values), place, "|", color=color, markersize=22, mew=2.5)
    left.set_yticks(range(len(results)), [title(r.row) for r in results])
    left.invert_yaxis()
    left.set(xlabel="Recall@1, %", title="Digits 5 to 9: each seed, and the mean")
    left.grid(axis="x", color="0.9")
    found = data("test")
    x, y = tensors(found)
    some = torch.cat([(y == k).nonzero()[:_POINTS, 0] for k in y.unique()])
    for axes, row in zip(right, SHOWN, strict=True):
        points, method = flat_map(embed(models[row], x[some]), "tsne")
        scatter(axes, points, y[some], found.class_names)
        axes.set_title(f"{title(row)}, {method}", fontsize=11)
    handles, names = right[0].get_legend_handles_labels()
    right[-1].legend(
        handles, names, title="digit", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False
    )
    fig.savefig(path, dpi=120)
    plt.close(fig)
