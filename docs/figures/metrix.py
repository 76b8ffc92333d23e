"""Metrix: mixtures of positives and negatives on a circle, and how their label moves the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import FIRST, GRAY, SECOND, WIDTH, circle, draw_circle, plt, save

import mixplug
from mixplug import sampling
from mixplug.functional import mix

PAIRS = 9
LAM = (0.0, 0.25, 0.5, 0.75, 1.0)


def draw(path: Path, quick: bool) -> None:
    """Left, what is mixed for an anchor; right, the loss (4.16) of one mixed embedding."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.6), layout="constrained")
    _mixtures(axes[0], quick)
    loss = mixplug.build("MultiSimilarity", kind="loss")
    s = torch.linspace(0.5, 1, 101)
    for lam in LAM:
        positive, negative = torch.tensor([[lam]]), torch.tensor([[1 - lam]])
        values = torch.stack([loss.share(one.view(1, 1), positive, negative).mean() for one in s])
        axes[1].plot(s, values - values.min(), color=plt.cm.viridis(lam), label=f"{lam:g}")
    axes[1].set(xlabel="similarity of mixed and anchor", title="loss of one mixed, by λ", yticks=[])
    axes[1].spines[["top", "right"]].set_visible(False)
    axes[1].legend(fontsize=7.5, frameon=False, loc="upper center", handlelength=1)
    fig.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False,
        fontsize=7.5, handletextpad=0.1, columnspacing=0.8,
    )  # fmt: skip
    save(fig, path)


def _mixtures(axes: Any, quick: bool) -> None:
    """Embeddings of digits; an anchor of class 2, and mixtures of its positives and negatives."""
    z, y, _ = circle("MultiSimilarity", 1 if quick else 8)
    draw_circle(axes, "mixed, colored by label λ")
    anchor = z[(y == 2).nonzero()[0, 0]]
    positive, negative = z[y == 2][1 : PAIRS + 1], z[y != 2]
    draws = sampling.generators(0, 0).local
    other = negative[sampling.permutation(len(negative), draws)[:PAIRS]]
    lam = sampling.beta(2.0, PAIRS, draws)
    mixed = F.normalize(mix(positive, other, lam), dim=1)
    for one, two in zip(positive, other, strict=True):
        axes.plot(*torch.stack([one, two]).T, color="0.85", linewidth=0.7, zorder=1)
    axes.scatter(*other.T, s=16, color=SECOND, label="negatives")
    axes.scatter(*positive.T, s=16, color=FIRST, label="positives")
    axes.scatter(
        *mixed.T, s=42, c=lam, cmap="viridis", vmin=0, vmax=1, edgecolors=GRAY, linewidths=0.6,
        zorder=3,
    )  # fmt: skip
    axes.scatter(*anchor, s=90, color="k", marker="*", zorder=4, label="anchor")
