"""Lightness of a video over time, with cuts and unusable parts (Figure 6.2a)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixplug.optional import optional
from mixplug.video.index import REASONS, VideoIndex
from mixplug.video.spans import merge

# Colors of Okabe and Ito; unusable parts also differ in hatching.
_LINE, _CUT = "#0072B2", "#000000"
_BAD = {
    "blank": ("0.75", ""),
    "corrupt": ("#D55E00", "///"),
    "missing": ("#CC79A7", "..."),
}
_SMOOTH = 30  # window in seconds of the mean that is drawn for long videos
_LONG = 600.0  # seconds from which on a video is long


def figure(index: VideoIndex, path: Path, title: str | None = None) -> None:
    """Draw and save L* against time.

    Args:
        index: index of a video; an incomplete one is drawn up to its position.
        path: path of the PNG.
        title: title of the figure; None uses the video's name.

    Raises:
        ValueError: the index has no lightness because no frame was decoded.
    """
    if not index.lightness:
        raise ValueError(f"{index.name} has no lightness to draw: no frame was decoded.")
    plt = optional("matplotlib.pyplot", "video", "The figure")
    unit, name = (60.0, "minutes") if index.duration >= 2 * 60 else (1.0, "seconds")
    times = [time / unit for time, _ in index.lightness]
    values = [value for _, value in index.lightness]
    fig, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    _draw_bad_parts(axes, index, unit)
    long = index.duration >= _LONG
    raw = {"color": "0.7", "linewidth": 0.6} if long else {"color": _LINE, "linewidth": 1.4}
    axes.plot(times, values, label="L*, once per second", **raw)
    if long:
        axes.plot(times, _mean(values), color=_LINE, label=f"mean over {_SMOOTH} s")
    if index.cuts:
        axes.plot(
            [cut / unit for cut in index.cuts], [0.03] * len(index.cuts), linestyle="",
            marker="|", markersize=9, color=_CUT, transform=axes.get_xaxis_transform(), label="cut",
        )  # fmt: skip
    axes.set(
        xlabel=f"time ({name})",
        ylabel="lightness L*",
        xlim=(0, index.duration / unit),
        ylim=(0, 100),
    )
    axes.set_title(summary(index), fontsize=9, color="0.35")
    fig.suptitle(index.name if title is None else title, fontsize=11)
    fig.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def summary(index: VideoIndex) -> str:
    """Properties of a video in one line."""
    usable = sum(end - start for start, end in index.spans(across_cuts=True)) / index.duration
    cuts = f"{len(index.cuts):,} cut{'' if len(index.cuts) == 1 else 's'}"
    return (
        f"{index.width} × {index.height}, {index.fps:.4g} frames per second, "
        f"{clock(index.duration)}, {cuts}, {usable:.1%} usable"
    )


def clock(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _draw_bad_parts(axes: Any, index: VideoIndex, unit: float) -> None:
    least = index.duration / 800  # narrower parts would be invisible
    for reason in REASONS:
        color, hatch = _BAD[reason]
        spans = merge((a, b) for a, b, why in index.bad if why == reason)
        for place, (start, end) in enumerate(spans):
            axes.axvspan(
                start / unit,
                max(end, start + least) / unit,
                facecolor=(color, 0.35),
                edgecolor=color,
                hatch=hatch,
                linewidth=0.5,
                label=None if place else reason,
            )


def _mean(values: Sequence[float]) -> list[float]:
    """Mean over a window around each value; the window is smaller at the ends."""
    half = _SMOOTH // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
