"""i-Mix, MoCHi and Proxy Synthesis: what each of them mixes, on a circle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import FIRST, GRAY, MIXED, SECOND, WIDTH, circle, draw_circle, plt, save
from torch import Tensor

from mixplug import sampling
from mixplug.functional import mix

COUNT, HARDEST = 8, 12
CLASS = 2  # of the anchor
LAM, PAIRS = 0.6, ((0, 4), (2, 1), (3, 1))  # of Proxy Synthesis: classes that are mixed
ROLES = {
    "other class": {"color": SECOND, "s": 14},
    "example": {"color": FIRST, "s": 14},
    "mixed": {"color": MIXED, "s": 34, "edgecolors": "k", "linewidths": 0.5, "zorder": 3},
    "anchor": {"color": "k", "s": 80, "marker": "*", "zorder": 4},
    "proxy": {"color": GRAY, "s": 36, "marker": "D"},
    "mixed proxy": {"color": MIXED, "s": 40, "marker": "D", "edgecolors": "k", "linewidths": 0.5},
}


def draw(path: Path, quick: bool) -> None:
    """Three circles: mixed anchors, mixed negatives, and mixed proxies with their examples."""
    epochs = 1 if quick else 8
    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 1.95), layout="constrained")
    z, y, _ = circle("MultiSimilarity", epochs)
    _anchors(axes[0], z, y)
    _negatives(axes[1], z, y)
    _proxies(axes[2], *circle("ProxyNCAPlusPlus", epochs))
    shown = {}
    for cell in axes:
        handles, labels = cell.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    fig.legend(
        shown.values(), shown.keys(), loc="outside lower center", ncols=3, frameon=False,
        fontsize=8, handletextpad=0.1, columnspacing=1,
    )  # fmt: skip
    save(fig, path)


def _anchors(axes: Any, z: Tensor, y: Tensor) -> None:
    """i-Mix: anchors of two classes, λ weighs the first; positives and negatives stay clean."""
    draw_circle(axes, "i-Mix")
    draws = sampling.generators(0, 2).local
    anchors, others = z[y == CLASS][:COUNT], z[y == 1][:COUNT]
    lam = sampling.beta(1.0, COUNT, draws)
    _points(axes, anchors, "example")
    _points(axes, others, "other class")
    _points(axes, F.normalize(mix(anchors, others, lam), dim=1), "mixed")


def _negatives(axes: Any, z: Tensor, y: Tensor) -> None:
    """MoCHi: mixtures of the hardest negatives, and of them with the anchor, λ below a half."""
    draw_circle(axes, "MoCHi")
    draws = sampling.generators(0, 0).local
    anchor, negatives = z[y == CLASS][0], z[y != CLASS]
    hard = negatives[(negatives @ anchor).topk(200).indices][:: 200 // HARDEST]
    first = hard[sampling.permutation(len(hard), draws)]
    lam = sampling.beta(1.0, 2 * len(hard), draws).split(len(hard))
    both = [mix(first, hard, lam[0]), mix(anchor.expand_as(hard), hard, lam[1] / 2)]
    _points(axes, hard, "other class")
    _points(axes, F.normalize(torch.cat(both), dim=1), "mixed")
    _points(axes, anchor[None], "anchor")


def _proxies(axes: Any, z: Tensor, y: Tensor, loss: Any) -> None:
    """Proxy Synthesis: one λ for examples of two classes and for their proxies."""
    draw_circle(axes, "Proxy Synthesis")
    with torch.no_grad():
        proxies, _ = loss.points_of_classes(z)
    examples = torch.stack([z[y == k][0] for k in range(len(proxies))])
    first, second = torch.tensor(PAIRS).T
    for made, role in ((proxies, "proxy"), (examples, "example")):
        _points(axes, made, role)
    for made, role in ((proxies, "mixed proxy"), (examples, "mixed")):
        _points(axes, F.normalize(mix(made[first], made[second], LAM), dim=1), role)


def _points(axes: Any, z: Tensor, role: str) -> None:
    axes.scatter(*z.T, label=role, **ROLES[role])
