"""Accuracy against confidence, one curve per network (Figure 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mixplug.optional import optional
from mixplug.viz.embedding import COLORS, MARKERS
from mixplug.viz.labels import wrap_name

Bins = Sequence[Tensor]
_LINE = 88  # characters per line of the legend


def figure(bins: Mapping[str, Bins], path: Path, title: str = "", least: float = 0.0) -> None:
    """Draw and save reliability curves, the share of images by confidence, and ECE.

    Args:
        bins: share, accuracy and confidence, (bins,) each, from
            :func:`mixplug.functional.calibration_bins`, for each network.
        path: path of the PNG.
        title: title of the figure.
        least: see :func:`curves`.

    Raises:
        ValueError: no network.
    """
    if not bins:
        raise ValueError("There is no reliability curve to draw.")
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    names = {name: wrap_name(name, _LINE) for name in bins}
    rows = sum(text.count("\n") + 1 for text in names.values())
    longest = max(len(line) for text in names.values() for line in text.split("\n"))
    size = (max(6.0, 0.075 * longest + 2.0), 6.2 + 0.21 * rows)
    fig = plt.figure(figsize=size, layout="constrained")
    above, below = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curves(above, {names[name]: values for name, values in bins.items()}, least=least)
    above.set_ylabel("accuracy")
    for place, (share, _, _) in enumerate(bins.values()):
        edges = [i / len(share) for i in range(len(share) + 1)]
        below.stairs(share.tolist(), edges, color=COLORS[place % len(COLORS)], linewidth=1.4)
    below.set(xlabel="confidence", ylabel="share of images", xlim=(0, 1.02), ylim=(0, None))
    fig.legend(*above.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    fig.suptitle(title, fontsize=11)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def curves(
    axes: Any,
    bins: Mapping[str, Bins],
    errors: Mapping[str, float] | None = None,
    least: float = 0.0,
) -> None:
    """Draw a reliability curve for each network; on the diagonal accuracy equals confidence.

    Args:
        axes: axes of matplotlib.
        bins: share, accuracy and confidence for each network, as for :func:`figure`.
        errors: ECE of each network, a fraction; None computes it from these bins.
        least: smallest share of the examples for which a bin gets a point; empty bins never do.
    """
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    for place, (name, (share, accuracy, confidence)) in enumerate(bins.items()):
        error = float((share * (accuracy - confidence).abs()).sum())
        error = errors[name] if errors is not None else error
        filled = (share > 0) & (share >= least)
        axes.plot(
            confidence[filled],
            accuracy[filled],
            color=COLORS[place % len(COLORS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=5,
            label=f"{name}, ECE {100 * error:.1f} %",
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
