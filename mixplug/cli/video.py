"""``mixplug video``: index a long video, and check whether it is one of the Walking Tours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixplug.cli.screen import console, one_line

if TYPE_CHECKING:
    from mixplug.video import VideoIndex
    from mixplug.video.pictures import Tick

app = typer.Typer(no_args_is_help=True, help="Long videos: create an index, check a file.")

_TOURS = (
    "amsterdam, bangkok, chiang-mai, istanbul, kuala-lumpur, singapore, stockholm, venice, "
    "wildlife or zurich"
)


@app.command()
def index(
    paths: Annotated[
        list[Path], typer.Argument(help="video files, folders of videos, or folders of frames")
    ],
    fps: Annotated[
        float | None, typer.Option(help="frames per second of a folder of frames")
    ] = None,
    detector: Annotated[
        str, typer.Option(help="detector of cuts: adaptive or content")
    ] = "adaptive",
    threads: Annotated[
        int | None, typer.Option(min=1, help="threads of the decoder (default: all cores)")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="create the index again")] = False,
    figure: Annotated[bool, typer.Option(help="draw lightness over time as a PNG")] = True,
) -> None:
    """Find keyframes, cuts, lightness, and blank or damaged parts in one pass over each video.

    The results are a JSON file and a PNG beside the video, or in ~/.cache/mixplug/video if that
    folder is not writable. Interrupted runs resume.
    """
    from mixplug.optional import optional

    with one_line():
        optional("av", "video", "mixplug video")
        from mixplug.data.videos import find_videos
        from mixplug.video import Settings, scan

        settings = Settings(detector)
        videos = [video for path in paths for video in find_videos(path)]
    failed = 0
    for video in videos:
        rate = fps if video.is_dir() else None
        try:
            with _bar(video.name) as tick:
                found = scan(video, rate, settings, force, threads, tick=tick)
            _report(video, found, figure)
        except KeyboardInterrupt:
            print("Interrupted. Run the command again to resume.", file=sys.stderr)
            raise typer.Exit(130) from None
        except (ImportError, ValueError) as error:
            print(f"mixplug: error: {error}", file=sys.stderr)
            failed += 1
    raise typer.Exit(int(failed > 0))


@app.command(help=f"Compare a video file with a Walking Tour (Table 6.2): {_TOURS}.")
def check(
    name: Annotated[str, typer.Argument(help=f"name of the tour: {_TOURS}")],
    file: Annotated[Path, typer.Argument(help="the video file, which must have an index")],
) -> None:
    """Print a line per comparison; the exit code is 1 if something is wrong."""
    from rich.table import Table

    colors = {"ok": "green", "note": "yellow", "wrong": "red"}
    with one_line():
        from mixplug.data import walking_tours
        from mixplug.video import VideoIndex

        walking_tours.tour(name)
        findings = walking_tours.check(name, VideoIndex.of(file))
    table = Table("", "Table 6.2", file.name, "", box=None)
    for finding in findings:
        verdict = f"[{colors[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(finding.subject, finding.wanted, finding.found, verdict)
    console().print(table)
    print(f"The authors' videos: {walking_tours.PAGE} ({walking_tours.LICENSE})")
    raise typer.Exit(int(any(finding.verdict == "wrong" for finding in findings)))


@contextmanager
def _bar(name: str) -> Iterator[Tick]:
    """Progress bar of a scan, with the remaining time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from mixplug.viz.lightness import clock

    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[at]}")]
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        tasks = {}

        def tick(done: float, total: float, what: str) -> None:
            if what not in tasks:  # a task per step, because the steps differ in speed
                tasks[what] = progress.add_task(f"{name}: {what}", at="", completed=int(done))
            at = f"{clock(done)} of {clock(total)}"
            progress.update(tasks[what], completed=done, total=total, at=at)

        yield tick


def _report(video: Path, found: VideoIndex, figure: bool) -> None:
    """Print a summary and the files of an index, and draw its figure."""
    from mixplug.video.index import SUFFIX, VideoIndex
    from mixplug.viz import lightness

    path = VideoIndex.path_of(video)
    files = [path]
    if figure and found.lightness:
        files.append(path.with_name(path.name.removesuffix(SUFFIX) + ".lightness.png"))
        lightness.figure(found, files[1])
    console().print(
        f"[bold]{video.name}[/]: {lightness.summary(found)}", highlight=False, soft_wrap=True
    )
    for reason in sorted({reason for _, _, reason in found.bad}):
        spans = [(a, b) for a, b, why in found.bad if why == reason]
        shown = ", ".join(f"{lightness.clock(a)}-{lightness.clock(b)}" for a, b in spans[:5])
        more = f" and {len(spans) - 5} more" if len(spans) > 5 else ""
        console().print(f"  {reason}: {shown}{more}", highlight=False, soft_wrap=True)
    for file in files:
        print(f"  {file}")
