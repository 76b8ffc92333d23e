"""``mixplug demo``: train in minutes, print a table, and write a figure and its numbers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mixplug.cli.screen import console, one_line, progress

app = typer.Typer(no_args_is_help=True, help="Run the main tasks on real data in minutes.")

Seeds = Annotated[int, typer.Option(min=1, help="number of seeds")]
Epochs = Annotated[int, typer.Option(min=1, help="number of epochs of each network")]
Out = Annotated[Path, typer.Option(help="folder for the figure and the numbers")]
_OUT = Path("output/demo")


@app.command()
def classification(seeds: Seeds = 3, epochs: Epochs = 10, out: Out = _OUT) -> None:
    """Train one small network on handwritten digits in five ways; print a table, draw a figure."""
    from mixplug.data.digits import digits
    from mixplug.demo import classification as job
    from mixplug.viz.classification import figure, mixed_examples

    with _training(len(job.METHODS) * seeds * epochs, out) as tick:
        results, models = job.run_all(range(seeds), epochs, lambda m: tick(f"training, {m}"))
        tick("drawing", 0)
        images, labels = digits("train", size=8)
        pair = [int((labels == k).nonzero()[0]) for k in (4, 9)]
        examples = mixed_examples(models["AlignMixup"], job.FEATURES, "fc", images, pair)
        rows = {r.method: r.probabilities for r in results}
        figure(rows, results[0].labels, examples, out / "demo.png")
    job.save(results, out / "demo.json")
    job.save_networks(models, out)
    table = Table("method", "accuracy %", "ECE %", "ms/step, relative", box=None)
    for result in results:
        relative = result.ms_per_step / results[0].ms_per_step
        table.add_row(
            result.method, _spread(result.accuracy), _spread(result.ece), f"{relative:.2f}"
        )
    console().print(table)
    print(
        f"{seeds} seed{'s, mean ± sd' if seeds > 1 else ''}; "
        f"no mixup takes {results[0].ms_per_step:.1f} ms per step.\n"
        f"After {epochs} epochs, networks trained with mixup are still underconfident;\n"
        f"the thesis trains for 2000 epochs (3.4.3)."
    )
    _print_paths(out, "demo")


@app.command()
def card(
    seed: Annotated[int, typer.Option(help="seed of all random draws")] = 0,
    out: Out = _OUT,
) -> None:
    """Make a reliability card of two networks from `mixplug demo classification`."""
    from mixplug.cli.eval.card import require, show
    from mixplug.cli.eval.options import bar

    with bar() as tick:
        require("mixplug demo card")
        from mixplug.demo import card as job
        from mixplug.evaluation.card.report import write_card

        result, data = job.run(out, out / "card", seed, tick)
        files = write_card(result, out / "card", list(data.classes))
    show(result, files)


@app.command()
def metric(seeds: Seeds = 3, epochs: Epochs = 6, out: Out = _OUT) -> None:
    """Train one small network on digits 0-4 with two losses and Metrix, and retrieve digits 5-9."""
    from mixplug.demo import metric as job

    with _training(len(job.ROWS) * seeds * epochs, out) as tick:
        results, models = job.run_all(
            range(seeds), epochs, lambda row: tick(f"{row[0]}, {row[1] or 'no Metrix'}")
        )
        tick("drawing", 0)
        job.figure(results, models, out / "metric.png")
    job.save(results, out / "metric.json")
    table = Table("loss", "Metrix", *(f"R@{k}" for k in job.KS), "time", box=None)
    for result in results:
        loss, level = result.row
        table.add_row(
            loss if level is None else "",
            level or "no",
            *(_spread(values, 1) for values in result.recall.values()),
            f"{result.ms_per_step / results[0].ms_per_step:.1f}",
        )
    console().print(table)
    print(
        f"Recall@K in percent, mean ± sd of {seeds} seeds, on five unseen digits;\n"
        f"time per step, relative to the first row's {results[0].ms_per_step:.1f} ms."
    )
    _print_paths(out, "metric")


@app.command()
def dora(
    steps: Annotated[int, typer.Option(min=1, help="number of training steps")] = 200,
    seed: Annotated[int, typer.Option(help="seed of weights, clips and heads")] = 0,
    out: Out = _OUT,
) -> None:
    """Train a tiny ViT from a ten-second street video, and draw the objects that it tracks."""
    import shutil

    from mixplug.data.shipped import shipped_clip
    from mixplug.optional import optional

    with _training(steps, out, threads=None) as tick:
        optional("av", "video", "mixplug demo dora")
        from mixplug.demo import dora as job
        from mixplug.video.scan import scan

        video = out / "bikes.mp4"
        shutil.copy(shipped_clip("bikes"), video)
        tick("finding cuts", 0)
        index = scan(video)
        result, method = job.train(video, steps, seed, lambda loss: tick(f"loss {loss:.3f}"))
        tick("drawing", 0)
        checkpoint = job.save(result, method, out)
        job.figure(result, out / "dora.png")
        files, overlaps = job.tracks(method, video, index, out)
    table = Table("", f"first {job.AVERAGED} steps", f"last {job.AVERAGED}", box=None)
    for name, first, last in result.ends():
        table.add_row(name, f"{first:.3f}", f"{last:.3f}")
    console().print(table)
    print(f"The teacher's output distribution is {job.collapsed(result)}.")
    shares = ", ".join(f"{100 * share:.0f} % {name}" for name, share in overlaps.items())
    print(f"Two objects overlap by {shares}.")
    _print_paths(out, "dora")
    print(f"checkpoint: {checkpoint.resolve()}")
    for file in files:
        print(f"objects: {file.resolve()}")


@app.command()
def transfer(
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="checkpoint of DoRA (default: that of `mixplug demo dora`)"),
    ] = None,
    scenes: Annotated[int, typer.Option(min=8, help="number of training scenes")] = 240,
    epochs: Annotated[int, typer.Option(min=1, help="number of epochs of the detector")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="number of steps of the segmentor")] = 250,
    seed: Annotated[int, typer.Option(help="seed of scenes, heads and the order of images")] = 0,
    out: Out = _OUT,
) -> None:
    """Fine-tune a tiny Cascade Mask R-CNN and UPerNet from DoRA's and from random weights."""
    from mixplug.optional import optional

    with one_line():
        for package in ("mmdet", "mmseg"):
            optional(package, package, "mixplug demo transfer")
        source = checkpoint or out / "dora.pth"
        if not source.is_file():
            raise ValueError(
                f"There is no checkpoint {source}. To create one, run: mixplug demo dora"
            )
    from mixplug.demo import transfer as job

    with _training(job.length(scenes, epochs, steps), out, threads=None) as tick:
        data = job.write_data(out / f"digit-scenes-{scenes}", scenes, scenes // 4, seed, tick)
        results = job.run(data, out / "transfer", source, epochs, steps, seed, tick)
        tick("drawing", 0)
        job.figure(results, data, out / "transfer.png")
    job.save(results, out / "transfer.json")
    table = Table("", *(f"{result.weights} weights" for result in results), box=None)
    for key, name in job.SCORES.items():
        table.add_row(name, *(f"{result.scores[key]:.1f}" for result in results))
    console().print(table)
    for result in results:
        if result.loaded:
            print(f"{result.weights}: {result.loaded}")
    print(
        f"In percent, one seed, {scenes} scenes. This shows that all parts work, not which weights "
        f"are better."
    )
    _print_paths(out, "transfer")


@contextmanager
def _training(steps: int, out: Path, threads: int | None = 1) -> Iterator[Callable[..., None]]:
    """Progress bar for a job that writes to a folder; a tick advances it by one or more steps."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    if threads is not None:  # for small tensors, more threads are slower
        torch.set_num_threads(threads)
    with one_line(), progress() as bar:
        task = bar.add_task("training", total=steps)

        def tick(text: str, done: int = 1) -> None:
            bar.update(task, advance=done, description=text)

        yield tick
        tick("done", 0)


def _print_paths(out: Path, stem: str) -> None:
    for what, suffix in (("figure", "png"), ("numbers", "json")):
        print(f"{what}: {(out / f'{stem}.{suffix}').resolve()}")


def _spread(values: list[float], digits: int = 2) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
