"""MultiMix: a batch of embeddings in a plane, points on segments, and points of the hull."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from common import GRAY, WIDTH, classifier, plt, save
from scipy.spatial import ConvexHull
from torch import Tensor

import mixplug
from mixplug import sampling
from mixplug.data import digits
from mixplug.functional import mix, multimix

BATCH, POINTS = 10, 300
COLORS = torch.tensor([[0.0, 0.45, 0.7], [0.84, 0.37, 0.0], [0.0, 0.62, 0.45]])  # of three classes


def draw(path: Path, quick: bool) -> None:
    """Embeddings of ten digits of three classes; a mixed one has its target's mixture of colors."""
    stages = classifier("MultiMix", 1 if quick else 10)
    z, y = _batch(stages)
    draws = sampling.generators(0, 3).local
    order, lam = sampling.permutation(BATCH, draws), sampling.beta(1.0, 1, draws).expand(BATCH)
    hull = sampling.hull_weights(POINTS, BATCH, generator=draws)
    some = {
        f"pairs: {BATCH} points, one λ": (mix(z, z[order], lam), mix(y, y[order], lam)),
        f"MultiMix: {POINTS} points": multimix(z, y, hull),
    }
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.3), layout="constrained")
    for cell, (name, (mixed, target)) in zip(axes, some.items(), strict=True):
        if name.startswith("pairs"):
            for i, j in enumerate(order.tolist()):
                cell.plot(*z[[i, j]].T, color="0.8", linewidth=0.8, zorder=0)
        else:
            outline = z[ConvexHull(z.numpy()).vertices]
            cell.fill(*outline.T, facecolor="none", edgecolor="0.8", linewidth=0.8, zorder=0)
        _scatter(cell, mixed, target, size=9, marker="o")
        _scatter(cell, z, y, size=34, marker="s", edgecolors="k", linewidths=0.7)
        cell.set(xticks=[], yticks=[], title=name)
        for edge in cell.spines.values():
            edge.set_color(GRAY)
    save(fig, path)


def _batch(stages: mixplug.Stages) -> tuple[Tensor, Tensor]:
    """Embeddings in the plane of their two main directions, (B, 2), and targets (B, 3)."""
    x, labels = digits("test", size=8)
    classes = torch.tensor([0, 1, 7])
    index = torch.cat([(labels == k).nonzero()[: 4 if k else 2, 0] for k in classes.tolist()])
    with torch.no_grad():
        e = stages(x[index]).embedding.double()
    e = e - e.mean(0)
    _, _, directions = torch.linalg.svd(e, full_matrices=False)
    target = (labels[index][:, None] == classes).float()
    return (e @ directions[:2].T).float(), target


def _scatter(cell: Any, z: Tensor, target: Tensor, size: float, **options: Any) -> None:
    cell.scatter(*z.T, s=size, c=(target @ COLORS).clamp(0, 1).numpy(), **options)
