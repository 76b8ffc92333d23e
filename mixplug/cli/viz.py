"""``mixplug viz``: figures of a metric model, of tracked objects, and of aligned feature maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixplug.cli.screen import one_line, progress
from mixplug.cli.tools import Grid, config_file, read_grid

app = typer.Typer(
    no_args_is_help=True, help="Figures of models: retrieval, tracked objects, aligned maps."
)

Config = Annotated[str, typer.Argument(help="mm config, or its name in mm_configs")]
Checkpoint = Annotated[Path, typer.Argument(help="of a training run")]
Seed = Annotated[int, typer.Option(help="of what is drawn at random")]
Out = Annotated[Path, typer.Option(help="folder for the figures")]
_OUT = Path("output/viz")


@app.command()
def retrieval(
    config: Config,
    checkpoint: Checkpoint,
    queries: Annotated[int, typer.Option(min=1, help="how many")] = 8,
    top: Annotated[int, typer.Option(min=1, help="neighbors of each")] = 5,
    seed: Seed = 0,
    out: Out = _OUT,
) -> None:
    """Show test queries and their nearest neighbors, hits and misses framed; PNG and HTML."""
    _draw("draw_retrieval", config, out, checkpoint, queries, top, seed)


@app.command()
def embedding(
    config: Config,
    checkpoints: Annotated[list[Path], typer.Argument(help="one or several, side by side")],
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="how many test classes; ten, or all if there are fewer"),
    ] = None,
    seed: Seed = 0,
    out: Out = _OUT,
) -> None:
    """Map test classes to two dimensions, by UMAP if it is installed, else by t-SNE."""
    _draw("draw_embedding", config, out, checkpoints, classes, seed)


@app.command()
def positivity(
    config: Config,
    checkpoint: Annotated[
        Path | None, typer.Argument(help="of a training run; without one, epoch 0")
    ] = None,
    seed: Seed = 0,
    out: Out = _OUT,
) -> None:
    """Plot how often a mixed embedding acts as a positive against λ, measured and by (4.14)."""
    _draw("draw_positivity", config, out, checkpoint, seed)


@app.command()
def tracks(
    video: Annotated[Path, typer.Argument(help="a video, or a folder of frames")],
    checkpoint: Annotated[
        str, typer.Argument(help="of mixplug, timm, mmpretrain, mmseg, DINO or DoRA; or timm:NAME")
    ],
    start: Annotated[float, typer.Option(min=0, help="of the first frame, in seconds")] = 0.0,
    frames: Annotated[int, typer.Option(min=1, help="how many")] = 8,
    interval: Annotated[float, typer.Option(min=0.001, help="seconds between frames")] = 1.0,
    head: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="an attention head per object; repeatable [three that overlap least]"
        ),
    ] = None,
    side: Annotated[
        int | None, typer.Option(min=1, help="height in pixels to which frames are resized")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="of the checkpoint: teacher, student or model")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="heads of the network, if not one per 64 channels")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="of a folder of frames")] = None,
    grid: Grid = None,
    out: Out = _OUT,
) -> None:
    """Show the objects that attention heads discover in a frame and track; PNG and MP4."""
    from mixplug.optional import optional

    with one_line(), progress(counted=False) as bar:
        optional("av", "video", "mixplug viz tracks")
        from mixplug.viz.track_video import draw_tracks

        task = bar.add_task("loading", total=None)
        files, said = draw_tracks(
            video, checkpoint, out, start, frames, interval, head or None, side, part, heads,
            fps, read_grid(grid), lambda text: bar.update(task, description=text),
        )  # fmt: skip
        bar.update(task, description="done")
    _say(files, said)


@app.command()
def alignment(
    first: Annotated[Path, typer.Argument(help="a picture, x")],
    second: Annotated[Path, typer.Argument(help="another, x'")],
    ckpt: Annotated[Path, typer.Option(help="of a training run with a decoder")],
    config: Annotated[
        str | None,
        typer.Option(help="mm config, or its name in mm_configs [the one beside the checkpoint]"),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="values of λ from 0 to 1")] = 7,
    eps: Annotated[
        float | None, typer.Option(help="ε, the entropy weight of the plan [the config's]")
    ] = None,
    iters: Annotated[
        int | None, typer.Option(min=0, help="Sinkhorn iterations [the config's]")
    ] = None,
    out: Out = _OUT,
) -> None:
    """Decode two pictures' mixed maps, not aligned and aligned, and show what corresponds; PNG."""
    from mixplug.optional import optional

    with one_line(), progress(counted=False) as bar:
        optional("mmpretrain", "mm", "mixplug viz alignment")
        task = bar.add_task("loading", total=None)
        path = config_file(config) if config else _beside(ckpt)
        jobs = optional("mixplug.from_config.alignment", "mm", "mixplug viz alignment")
        files, said = jobs.draw_alignment(
            first, second, ckpt, path, steps, eps, iters, out,
            lambda text: bar.update(task, description=text),
        )  # fmt: skip
        bar.update(task, description="done")
    _say(files, said)


def _beside(checkpoint: Path) -> Path:
    """The config that mmengine has written into the folder of a run.

    What a checkpoint itself holds of it is not read: to read a config is to run it.
    """
    found = sorted(checkpoint.parent.glob("*.py"))
    if len(found) != 1:
        raise ValueError(
            f"The config of {checkpoint} is wanted, and {checkpoint.parent} has {len(found)} "
            f"configs: say which with --config."
        )
    return found[0]


def _draw(job: str, config: str, out: Path, *arguments: object) -> None:
    """Run a job of mixplug.from_config.figures and print what it says and where its files are."""
    from mixplug.optional import optional

    with one_line():
        optional("mmpretrain", "mm", "mixplug viz")
        jobs = optional("mixplug.from_config.figures", "mm", "mixplug viz")
        path = config_file(config)
        out.mkdir(parents=True, exist_ok=True)
        with progress() as bar:
            task = bar.add_task("embedding", total=None)

            def tick(done: int, total: int) -> None:
                text = "embedding" if done < total else "drawing"
                bar.update(task, completed=done, total=total, description=text)

            files, said = getattr(jobs, job)(path, *arguments, out, tick)
            bar.update(task, description="done")
    _say(files, said)


def _say(files: list[Path], said: str) -> None:
    print(said)
    for file in files:
        print(f"{file.suffix[1:]}: {file.resolve()}")
