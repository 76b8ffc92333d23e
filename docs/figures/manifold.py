"""Manifold mixup: two digits, and their mixture, at the places of a network where it can mix."""

from __future__ import annotations

from pathlib import Path

import torch
from common import FIRST, GRAY, MIXED, SECOND, WIDTH, classifier, plt, save, show
from torch import Tensor

import mixplug
from mixplug.data import digits
from mixplug.mixers import Plan
from mixplug.mixers.base import pair

LEVELS = {"x": "'x'", "stages.0": "'stages.0'", "stages.1": "'stages.1'", "A": "'A'"}
LAM = 0.5


def draw(path: Path, quick: bool) -> None:
    """Maps are shown as the mean over channels, the embedding as its values."""
    stages = classifier("no mixup", 1 if quick else 10)
    images, labels = digits("test", size=8)
    index = [int((labels == k).nonzero()[0, 0]) for k in (3, 6)]
    x = images[index]
    maps, e = _passed(stages, x)
    plan = Plan("A", torch.tensor([1, 0]), torch.full((2,), LAM))
    fig, axes = plt.subplots(
        3, len(maps) + 1, figsize=(WIDTH, 2.4), layout="constrained",
        gridspec_kw={"width_ratios": [1] * len(maps) + [1.5]},
    )  # fmt: skip
    for column, (name, a) in enumerate(maps.items()):
        for row, one in enumerate([*a, pair(a, plan)[0]]):
            show(axes[row, column], one.mean(0), LEVELS[name] if row == 0 else "", cmap="viridis")
    for row, (one, color) in enumerate(
        zip([*e, pair(e, plan)[0]], (FIRST, SECOND, MIXED), strict=True)
    ):
        cell = axes[row, -1]
        cell.bar(range(len(one)), one, width=1.0, color=color)
        cell.set(xticks=[], yticks=[], title="'e'" if row == 0 else "")
        for edge in cell.spines.values():
            edge.set_color(GRAY)
    for cell, name in zip(axes[:, 0], ("first", "second", "mixed"), strict=True):
        cell.set_ylabel(name)
    save(fig, path)


@torch.no_grad()
def _passed(stages: mixplug.Stages, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What flows at every level, (2, C, H, W), and the embeddings."""
    found = {"x": x}
    for name in ("stages.0", "stages.1"):
        found[name] = stages.with_map(x, name)[1]
    forward, found["A"] = stages.with_map(x)
    return found, forward.embedding
