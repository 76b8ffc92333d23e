"""Histograms of the scores of in-distribution and out-of-distribution images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.optional import optional
from mixplug.viz.embedding import COLORS
from mixplug.viz.labels import wrap_name

_ACROSS = 3  # networks per row
_BINS = 40
_LINE = 46  # characters per line of a title


def figure(
    scores: Mapping[str, Mapping[str, Tensor]], path: Path, score: str = "score", title: str = ""
) -> None:
    """Draw and save a histogram of scores for each network and set; less overlap is better.

    All sets of a network use the same bins, and every histogram has area 1.

    Args:
        scores: (N,) for each network and set; the first set is in-distribution and drawn filled.
        path: path of the PNG.
        score: name of the score.
        title: title of the figure.

    Raises:
        ValueError: no network, or a network without scores.
    """
    if not scores or not all(sets for sets in scores.values()):
        raise ValueError("There are no scores to draw.")
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    across = min(_ACROSS, len(scores))
    down = -(-len(scores) // across)
    sets = list(dict.fromkeys(name for by_set in scores.values() for name in by_set))
    columns = max(1, min(len(sets), int(4 * across / (0.09 * max(map(len, sets)) + 0.9))))
    lines = max(len(wrap_name(name, _LINE).split("\n")) for name in scores)
    high = (2.9 + 0.16 * lines) * down + 0.22 * -(-len(sets) // columns) + 0.4
    fig, grid = plt.subplots(
        down, across, figsize=(4 * across, high), squeeze=False, layout="constrained"
    )
    for cell, (name, by_set) in zip(grid.flat, scores.items(), strict=False):
        histograms(cell, by_set, sets)
        cell.set_title(wrap_name(name, _LINE), fontsize=9)
        cell.set(xlabel=score, yticks=[])
    for cell in list(grid.flat)[len(scores) :]:
        cell.set_visible(False)
    handles = {}
    for cell in grid.flat:
        handles |= dict(zip(*reversed(cell.get_legend_handles_labels()), strict=True))
    fig.legend(
        [handles[name] for name in sets], sets, ncols=columns, loc="outside lower center",
        frameon=False,
    )  # fmt: skip
    fig.suptitle(title, fontsize=11)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def histograms(axes: Any, scores: Mapping[str, Tensor], order: list[str]) -> None:
    """Draw the sets of one network; the position in ``order`` gives the color of a set."""
    every = torch.cat([found.flatten().double().cpu() for found in scores.values()])
    low, high = float(every.min()), float(every.max())
    edges = torch.linspace(low, high if high > low else low + 1, _BINS + 1, dtype=torch.float64)
    for name, found in scores.items():
        count, _ = torch.histogram(found.flatten().double().cpu(), edges)
        density = count / (count.sum() * (edges[1] - edges[0]))
        place = order.index(name)
        color = COLORS[place % len(COLORS)]
        style = "--" if place // len(COLORS) else "-"
        axes.stairs(
            density.tolist(), edges.tolist(), fill=place == 0, color=color, label=name,
            alpha=0.45 if place == 0 else 1.0, linewidth=1.4, linestyle=style,
        )  # fmt: skip
    axes.set(ylim=(0, None))
