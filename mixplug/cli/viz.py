"""``mixplug viz``: figures of retrieval, embeddings, tracked objects and aligned feature maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixplug.cli.eval.options import Mean, Model, Std, read_colors
from mixplug.cli.screen import one_line, progress
from mixplug.cli.tools import Grid, config_file, read_grid

app = typer.Typer(
    no_args_is_help=True,
    help="Draw figures: retrieval results, embeddings, tracked objects, aligned feature maps.",
)

Config = Annotated[str, typer.Argument(help="mm config, or its name in mm_configs")]
Checkpoint = Annotated[Path, typer.Argument(help="checkpoint of a training run")]
Seed = Annotated[int, typer.Option(help="seed of random draws")]
Out = Annotated[Path, typer.Option(help="folder for the figures")]
_OUT = Path("output/viz")


@app.command()
def retrieval(
    config: Config,
    checkpoint: Checkpoint,
    queries: Annotated[int, typer.Option(min=1, help="number of queries")] = 8,
    top: Annotated[int, typer.Option(min=1, help="number of neighbors of each query")] = 5,
    seed: Seed = 0,
    out: Out = _OUT,
) -> None:
    """Draw test queries and their nearest neighbors, with hits and misses framed; PNG and HTML."""
    _draw("draw_retrieval", config, out, checkpoint, queries, top, seed)


@app.command()
def embedding(
    config: Config,
    checkpoints: Annotated[
        list[Path], typer.Argument(help="one or more checkpoints, drawn side by side")
    ],
    classes: Annotated[
        int | None,
        typer.Option(
            min=1, help="number of test classes (default: ten, or all if there are fewer)"
        ),
    ] = None,
    seed: Seed = 0,
    out: Out = _OUT,
) -> None:
    """Draw test classes in two dimensions, by UMAP if it is installed, otherwise by t-SNE."""
    _draw("draw_embedding", config, out, checkpoints, classes, seed)


@app.command()
def positivity(
    config: Config,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="checkpoint of a training run (default: untrained, at epoch 0)"),
    ] = None,
    seed: Seed = 0,
    out: Out = _OUT,
) -> None:
    """Plot how often a mixed embedding acts as a positive, against λ: measured and in theory.

    The theory is equation (4.14).
    """
    _draw("draw_positivity", config, out, checkpoint, seed)


@app.command()
def tracks(
    video: Annotated[Path, typer.Argument(help="a video, or a folder of frames")],
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="checkpoint of mixplug, timm, mmpretrain, mmseg, DINO, DoRA, DINOv2, MAE or "
            "Hugging Face's transformers; or timm:NAME"
        ),
    ],
    start: Annotated[float, typer.Option(min=0, help="time of the first frame in seconds")] = 0.0,
    frames: Annotated[int, typer.Option(min=1, help="number of frames")] = 8,
    interval: Annotated[float, typer.Option(min=0.001, help="seconds between frames")] = 1.0,
    head: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            help="attention head of an object; repeat for more objects (default: the three heads "
            "that overlap least)",
        ),
    ] = None,
    side: Annotated[
        int | None, typer.Option(min=1, help="height in pixels to which frames are resized")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="part of the checkpoint: teacher, student or model")
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(min=1, help="number of attention heads of the network (default: width / 64)"),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="frames per second of a folder of frames")
    ] = None,
    grid: Grid = None,
    model: Model = None,
    mean: Mean = None,
    std: Std = None,
    out: Out = _OUT,
) -> None:
    """Draw the objects that attention heads discover in a frame and track in others.

    The output is a PNG and an MP4.
    """
    from mixplug.optional import optional

    with one_line(), progress(counted=False) as bar:
        optional("av", "video", "mixplug viz tracks")
        from mixplug.viz.track_video import draw_tracks

        task = bar.add_task("loading", total=None)
        files, summary = draw_tracks(
            video, checkpoint, out, start, frames, interval, head or None, side, part, heads,
            fps, read_grid(grid), lambda text: bar.update(task, description=text), model,
            **read_colors(mean, std),
        )  # fmt: skip
        bar.update(task, description="done")
    _report(files, summary)


@app.command()
def alignment(
    first: Annotated[Path, typer.Argument(help="first image, x")],
    second: Annotated[Path, typer.Argument(help="second image, x'")],
    ckpt: Annotated[Path, typer.Option(help="checkpoint of a training run with a decoder")],
    config: Annotated[
        str | None,
        typer.Option(
            help="mm config, or its name in mm_configs (default: the config beside the checkpoint)"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="number of values of λ from 0 to 1")] = 7,
    eps: Annotated[
        float | None,
        typer.Option(help="ε, entropy weight of the plan (default: that of the config)"),
    ] = None,
    iters: Annotated[
        int | None,
        typer.Option(min=0, help="number of Sinkhorn iterations (default: that of the config)"),
    ] = None,
    out: Out = _OUT,
) -> None:
    """Decode mixed feature maps of two images, aligned and not, and draw correspondences; PNG."""
    from mixplug.optional import optional

    with one_line(), progress(counted=False) as bar:
        optional("mmpretrain", "mm", "mixplug viz alignment")
        task = bar.add_task("loading", total=None)
        path = config_file(config) if config else _config_beside(ckpt)
        jobs = optional("mixplug.from_config.alignment", "mm", "mixplug viz alignment")
        files, summary = jobs.draw_alignment(
            first, second, ckpt, path, steps, eps, iters, out,
            lambda text: bar.update(task, description=text),
        )  # fmt: skip
        bar.update(task, description="done")
    _report(files, summary)


def _config_beside(checkpoint: Path) -> Path:
    """The config that mmengine wrote into the folder of a run.

    The copy of the config in the checkpoint is not used, because reading a config executes it.
    """
    from mixplug.image_files import hidden

    found = sorted(p for p in checkpoint.parent.glob("*.py") if not hidden(p.name))
    if len(found) != 1:
        raise ValueError(
            f"{checkpoint.parent} must have one config, got {len(found)}. Choose the config of "
            f"{checkpoint.name} with --config."
        )
    return found[0]


def _draw(job: str, config: str, out: Path, *arguments: object) -> None:
    """Run a job of mixplug.from_config.figures, and print its summary and its files."""
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

            files, summary = getattr(jobs, job)(path, *arguments, out, tick)
            bar.update(task, description="done")
    _report(files, summary)


def _report(files: list[Path], summary: str) -> None:
    print(summary)
    for file in files:
        print(f"{file.suffix[1:]}: {file.resolve()}")
