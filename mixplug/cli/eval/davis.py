"""``mixplug eval davis``: video object segmentation on DAVIS-2017 (Table 6.4a)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mixplug.cli.eval import app
from mixplug.cli.eval.options import (
    Checkpoint,
    Device,
    Heads,
    Mean,
    Model,
    Part,
    Std,
    bar,
    read_colors,
)
from mixplug.cli.screen import console
from mixplug.cli.tools import Grid, read_grid

if TYPE_CHECKING:
    from mixplug.evaluation.frozen.davis import DavisResult
    from mixplug.functional.vos import Course
    from mixplug.metrics.vos import ObjectScore

_MEASURES = ("mean", "recall", "decay")


@app.command()
def davis(
    root: Annotated[
        Path,
        typer.Argument(help="folder of DAVIS-2017, with JPEGImages, Annotations and ImageSets"),
    ],
    checkpoint: Checkpoint,
    part: Part = None,
    out: Annotated[
        Path, typer.Option(help="output folder for predictions and davis-SPLIT.json")
    ] = Path("output/eval/davis"),
    split: Annotated[str, typer.Option(help="name of a list in ImageSets/2017")] = "val",
    size: Annotated[int, typer.Option(min=1, help="shorter side in pixels")] = 480,
    last_frames: Annotated[
        int, typer.Option(min=0, help="preceding frames to propagate from, besides the first frame")
    ] = 7,
    topk: Annotated[int, typer.Option(min=1, help="patches to take labels from")] = 5,
    radius: Annotated[
        int, typer.Option(min=0, help="their maximum distance in patches; 0 is unlimited")
    ] = 12,
    temperature: Annotated[float, typer.Option(help="temperature of their weights")] = 0.1,
    heads: Heads = None,
    model: Model = None,
    mean: Mean = None,
    std: Std = None,
    grid: Grid = None,
    device: Device = None,
) -> None:
    """Segment the objects of DAVIS-2017 by label propagation with the protocol of DINO: J and F.

    Interrupted runs resume with the first unfinished video.
    """
    from mixplug.optional import optional

    with bar() as tick:
        for module in ("timm", "torchvision"):
            optional(module, "timm", "mixplug eval davis")
        from mixplug.data.davis import davis_videos
        from mixplug.evaluation.frozen.davis import evaluate_davis
        from mixplug.evaluation.frozen.frozen import NORMALIZATION, Frozen
        from mixplug.evaluation.frozen.label_propagation import Protocol

        videos = davis_videos(root, split)  # first, since the network takes longer
        protocol = Protocol(
            size, last_frames=last_frames, topk=topk, radius=radius or None, temperature=temperature
        )
        frozen = Frozen.of(
            checkpoint, part, heads, read_grid(grid), device, model, **read_colors(mean, std)
        )
        found = evaluate_davis(frozen, videos, out, split, protocol, tick)
    console().print(_table(found))
    print(frozen.source)
    print(frozen.images.line(NORMALIZATION))
    _print_rest(found, len(videos), out)


def _table(found: DavisResult) -> Table:
    """Rows of the videos with means over their objects, and a row of all objects; in percent."""
    table = Table("video", "objects", "J&F", box=None)
    for measure in ("J", "F"):
        for name in _MEASURES:
            table.add_column(f"{measure} {name}", justify="right")
    videos = dict.fromkeys(score.video for score in found.objects)
    for video in videos:
        table.add_row(video, *_row([score for score in found.objects if score.video == video]))
    table.add_section()
    table.add_row("all objects", *_row(found.objects), style="bold")
    return table


def _row(objects: Sequence[ObjectScore]) -> list[str]:
    from mixplug.metrics.vos import overall

    scores = overall(objects)
    return [
        str(len(objects)), _percent(scores.both), *_course(scores.region), *_course(scores.contour)
    ]  # fmt: skip


def _course(course: Course) -> list[str]:
    return [_percent(getattr(course, name)) for name in _MEASURES]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _print_rest(found: DavisResult, videos: int, out: Path) -> None:
    if len(found.segmented) < videos:
        existing = videos - len(found.segmented)
        print(f"{existing} of {videos} videos already had predictions")
    if found.frames_per_second is not None:
        print(f"speed: {found.frames_per_second:.2f} frames per second, without scoring")
    if found.peak_bytes is not None:
        print(f"peak memory: {found.peak_bytes / 2**30:.2f} GiB")
    print(f"predictions: {out.resolve()}")
    print(f"{found.file.suffix[1:]}: {found.file.resolve()}")
