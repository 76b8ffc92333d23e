"""The metric losses: how each depends on the similarity of one positive, and of one negative."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from common import WIDTH, plt, save
from torch import Tensor

import mixplug
from mixplug.viz.embedding import COLORS

PROXIES = {"num_classes": 2, "dim": 2}
STYLES = {  # NCA and ProxyNCA are one form, so they are one curve
    "Contrastive": "-",
    "LiftedStructure": "--",
    "BinomialDeviance": "-",
    "MultiSimilarity": "--",
    "NCA": "-",
    "ProxyAnchor": "-.",
    "ProxyNCAPlusPlus": ":",
}
POSITIVE, NEGATIVE = (
    -0.4,
    0.8,
)  # similarity of the other one; matters to LiftedStructure alone


def draw(path: Path, quick: bool) -> None:
    """Every curve is scaled to [0, 1]: what differs is where a loss still pulls or pushes."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9), layout="constrained", sharey=True)
    s = torch.linspace(-1, 1, 201)
    fixed = torch.ones_like(s)
    for color, (name, style) in zip(COLORS, STYLES.items(), strict=True):
        loss = mixplug.build(name, kind="loss", **(PROXIES if name.startswith("Proxy") else {}))
        label = "NCA, ProxyNCA" if name == "NCA" else name
        pulled = _values(loss, s, NEGATIVE * fixed)
        pushed = _values(loss, POSITIVE * fixed, s)
        for cell, values in zip(axes, (pulled, pushed), strict=True):
            thick = 3.5 if name == "Contrastive" else 1.4  # others hide it in part
            cell.plot(s, values, style, color=color, linewidth=thick, label=label)
    axes[0].set(xlabel="s(a, p) of the positive", ylabel="loss, scaled to [0, 1]")
    axes[1].set(xlabel="s(a, n) of the negative")
    for cell in axes:
        cell.spines[["top", "right"]].set_visible(False)
    fig.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False,
        fontsize=8,
    )  # fmt: skip
    save(fig, path)


def _values(loss: Any, positive: Tensor, negative: Tensor) -> Tensor:
    """The loss of an anchor with one positive and one negative, (S,), in [0, 1]."""
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    pairs = torch.stack([positive, negative], 1)
    values = torch.stack([loss.share(pair[None], first, second).mean() for pair in pairs]).detach()
    return (values - values.min()) / (values.max() - values.min())
