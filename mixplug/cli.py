"""The command ``mixplug``."""

from __future__ import annotations

import dataclasses
import json
import math
import runpy
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from mixplug.bench.measure import Row

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
demo = typer.Typer(no_args_is_help=True, help="Main jobs on real data, in minutes.")
bench = typer.Typer(no_args_is_help=True, help="Speed, as ratios within one run.")
app.add_typer(demo, name="demo")
viz = typer.Typer(no_args_is_help=True, help="Figures of a metric model, from its mm config.")
app.add_typer(bench, name="bench")
app.add_typer(viz, name="viz")
console = Console(soft_wrap=False)

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


Rounds = Annotated[int, typer.Option(min=1, help="of each alternative, taken in turns")]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...")]
Threads = Annotated[
    int, typer.Option(min=1, help="on the CPU; with more than one, other work disturbs more")
]
RowsFile = Annotated[Path | None, typer.Option("--json", help="write the rows here")]


@app.callback()
def main() -> None:
    """Mixing in feature space as one config key, in timm and OpenMMLab pipelines."""


@app.command("list")
def list_() -> None:
    """List what the catalog offers: mixers here, and those of installed plugins."""
    from mixplug.catalog import REQUIRED, entries

    table = Table("name", "kind", "source, hosts", box=None)
    table.add_column("keys and defaults", overflow="fold")
    for entry in entries():
        keys = ", ".join(
            key if value is REQUIRED else f"{key}={_short(value)}"
            for key, value in entry.defaults.items()
        )
        name = f"[bold]{entry.name}[/]\n{entry.alias}"
        source = f"{entry.reference}\n{', '.join(entry.hosts)}"
        table.add_row(name, entry.kind, source, keys + "\n")
    console.print(table)


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, and what does not work (then exit with 1)."""
    from mixplug.doctor import examine

    colors = {"ok": "green", "missing": "yellow", "broken": "red"}
    table = Table("", "", "state", box=None, show_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        findings = list(examine())
    for finding in findings:
        color = colors[finding.state]
        table.add_row(finding.subject, finding.seen, f"[{color}]{finding.state}[/]")
    console.print(table)
    raise typer.Exit(any(finding.state == "broken" for finding in findings))


@app.command(context_settings=_PASS_ON)
def train(context: typer.Context, config: Annotated[str, typer.Argument(help="mm config")]) -> None:
    """Train an mm config with mmpretrain's own tools/train.py, and the key mixup understood.

    CONFIG is a path, or the name of a config in mm_configs. Further arguments are the tool's.
    """
    _mm_tool("train.py", config, context.args)


@app.command(context_settings=_PASS_ON)
def test(
    context: typer.Context,
    config: Annotated[str, typer.Argument(help="mm config")],
    checkpoint: Annotated[str, typer.Argument(help="of a training run")],
) -> None:
    """Test a checkpoint with mmpretrain's own tools/test.py. Further arguments are the tool's."""
    if "://" not in checkpoint and not Path(checkpoint).is_file():
        raise typer.BadParameter(f"there is no checkpoint {checkpoint}.")
    _mm_tool("test.py", config, [checkpoint, *context.args])


def _mm_tool(name: str, config: str, arguments: list[str]) -> None:
    from mixplug.optional import optional

    path = find_config(config)
    with _one_line():
        mmpretrain = optional("mmpretrain", "mm", f"mixplug {name.removesuffix('.py')}")
        optional("mixplug.mm", "mm", "The mixup key")
    tool = Path(mmpretrain.__file__).parent / ".mim" / "tools" / name
    if not tool.is_file():  # an editable install keeps its tools at the root of its repository
        tool = Path(mmpretrain.__file__).parents[1] / "tools" / name
    sys.argv = [str(tool), str(path), *arguments]
    runpy.run_path(str(tool), run_name="__main__")


def find_config(name: str) -> Path:
    """A config by its path, or by its name below mm_configs.

    Raises:
        typer.BadParameter: no such file; it names the nearest.
    """
    import difflib

    if Path(name).is_file():
        return Path(name)
    root = Path(__file__).parents[1] / "mm_configs"
    shipped = {path.stem: path for path in root.rglob("*.py") if "_base_" not in path.parts}
    stem = Path(name).name.removesuffix(".py")
    if stem in shipped:
        return shipped[stem]
    beside = [str(path) for path in Path(name).parent.glob("*.py")]
    nearest = difflib.get_close_matches(name, beside, n=2, cutoff=0.7)
    nearest += difflib.get_close_matches(stem, shipped, n=3, cutoff=0.3)
    raise typer.BadParameter(
        f"{name} is neither a file nor the name of a config in mm_configs. "
        f"Nearest: {', '.join(nearest) or 'none'}."
    )


@demo.command()
def classification(
    seeds: Annotated[int, typer.Option(min=1, help="how many")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="of each network")] = 10,
    out: Annotated[Path, typer.Option(help="folder for the figure and the numbers")] = Path(
        "output/demo"
    ),
) -> None:
    """Train one small network on handwritten digits in five ways; a table and a figure."""
    import torch

    from mixplug.data.digits import digits
    from mixplug.demo import classification as job
    from mixplug.viz.classification import figure, mixed_examples

    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # on tensors so small a second thread waits more than it works
    with _one_line(), _progress() as progress:
        task = progress.add_task("training", total=len(job.METHODS) * seeds * epochs)

        def tick(method: str) -> None:
            progress.update(task, advance=1, description=f"training, {method}")

        results, models = job.run_all(range(seeds), epochs, tick)
        progress.update(task, description="drawing")
        images, labels = digits("train", size=8)
        pair = [int((labels == k).nonzero()[0]) for k in (4, 9)]
        examples = mixed_examples(models["AlignMixup"], job.FEATURES, "fc", images, pair)
        rows = {r.method: r.probabilities for r in results}
        figure(rows, results[0].labels, examples, out / "demo.png")
        progress.update(task, description="done")
    job.save(results, out / "demo.json")
    table = Table("method", "accuracy %", "ECE %", "ms/step, relative", box=None)
    for result in results:
        relative = result.ms_per_step / results[0].ms_per_step
        table.add_row(
            result.method, _spread(result.accuracy), _spread(result.ece), f"{relative:.2f}"
        )
    console.print(table)
    print(
        f"{seeds} seeds, mean ± sd; no mixup takes {results[0].ms_per_step:.1f} ms per step.\n"
        f"After {epochs} epochs networks trained with mixup are still unsure of themselves;\n"
        f"the thesis trains for 2000 (3.4.3)."
    )
    print(f"figure: {(out / 'demo.png').resolve()}\nnumbers: {(out / 'demo.json').resolve()}")


@demo.command()
def metric(
    seeds: Annotated[int, typer.Option(min=1, help="how many")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="of each network")] = 6,
    out: Annotated[Path, typer.Option(help="folder for the figure and the numbers")] = Path(
        "output/demo"
    ),
) -> None:
    """Train one small network on digits 0-4 with two losses and Metrix; retrieve digits 5-9."""
    import torch

    from mixplug.demo import metric as job

    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # on tensors so small a second thread waits more than it works
    with _one_line(), _progress() as progress:
        task = progress.add_task("training", total=len(job.ROWS) * seeds * epochs)

        def tick(row: tuple[str, str | None]) -> None:
            progress.update(task, advance=1, description=f"{row[0]}, {row[1] or 'no Metrix'}")

        results, models = job.run_all(range(seeds), epochs, tick)
        progress.update(task, description="drawing")
        job.figure(results, models, out / "metric.png")
        progress.update(task, description="done")
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
    console.print(table)
    print(
        f"Recall@K in percent, mean ± sd of {seeds} seeds, of five digits never trained on;\n"
        f"time of a step, relative to the first row's {results[0].ms_per_step:.1f} ms."
    )
    print(f"figure: {(out / 'metric.png').resolve()}\nnumbers: {(out / 'metric.json').resolve()}")


@bench.command()
def mixers(
    rounds: Rounds = 5,
    device: Device = "cpu",
    threads: Threads = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="head, step, sinkhorn or import; repeatable")
    ] = None,
    json_path: RowsFile = None,
) -> None:
    """Print the ratios that are promised for mixers, and whether this run kept them."""
    from mixplug.bench import mixers as groups

    _bench(groups.GROUPS, only, rounds, device, threads, json_path)


@bench.command("metric")
def bench_metric(
    rounds: Rounds = 5,
    device: Device = "cpu",
    threads: Threads = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="loss, head, step or retrieval; repeatable")
    ] = None,
    json_path: RowsFile = None,
) -> None:
    """Print the ratios that are promised for metric learning, and whether this run kept them."""
    from mixplug.bench import metric as groups

    _bench(groups.GROUPS, only, rounds, device, threads, json_path)


_CONFIG = typer.Argument(help="mm config, or its name in mm_configs")
_CHECKPOINT = typer.Argument(help="of a training run")
_FIGURES = typer.Option(help="folder for the figures")
_SEED = typer.Option(help="of what is drawn at random")


@viz.command("retrieval")
def viz_retrieval(
    config: Annotated[str, _CONFIG],
    checkpoint: Annotated[Path, _CHECKPOINT],
    queries: Annotated[int, typer.Option(min=1, help="how many")] = 8,
    top: Annotated[int, typer.Option(min=1, help="neighbours of each")] = 5,
    seed: Annotated[int, _SEED] = 0,
    out: Annotated[Path, _FIGURES] = Path("output/viz"),
) -> None:
    """Show test queries and their nearest neighbours, hits and misses framed; PNG and HTML."""
    _draw("draw_retrieval", config, out, checkpoint, queries, top, seed)


@viz.command("embedding")
def viz_embedding(
    config: Annotated[str, _CONFIG],
    checkpoints: Annotated[list[Path], typer.Argument(help="one or several, side by side")],
    classes: Annotated[int, typer.Option(min=1, help="how many test classes")] = 10,
    seed: Annotated[int, _SEED] = 0,
    out: Annotated[Path, _FIGURES] = Path("output/viz"),
) -> None:
    """Map test classes to two dimensions, by UMAP if it is installed, else by t-SNE."""
    _draw("draw_embedding", config, out, checkpoints, classes, seed)


@viz.command("positivity")
def viz_positivity(
    config: Annotated[str, _CONFIG],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="of a training run; without one, epoch 0")
    ] = None,
    seed: Annotated[int, _SEED] = 0,
    out: Annotated[Path, _FIGURES] = Path("output/viz"),
) -> None:
    """Plot how often a mixed embedding acts as a positive against λ, measured and by (4.14)."""
    _draw("draw_positivity", config, out, checkpoint, seed)


def _draw(job: str, config: str, out: Path, *arguments: object) -> None:
    """Run a job of mixplug.viz.from_config and print what it says and where its files are."""
    from mixplug.optional import optional

    with _one_line():
        optional("mmpretrain", "mm", "mixplug viz")
        jobs = optional("mixplug.viz.from_config", "mm", "mixplug viz")
        try:
            path = find_config(config)
        except typer.BadParameter as error:
            raise ValueError(error.message) from None
        out.mkdir(parents=True, exist_ok=True)
        with _progress() as progress:
            task = progress.add_task("embedding", total=None)

            def tick(done: int, total: int) -> None:
                text = "embedding" if done < total else "drawing"
                progress.update(task, completed=done, total=total, description=text)

            files, said = getattr(jobs, job)(path, *arguments, out, tick)
            progress.update(task, description="done")
    print(said)
    for file in files:
        print(f"{file.suffix[1:]}: {file.resolve()}")


def _bench(
    groups: Mapping[str, Callable[..., Iterator[Row]]],
    only: list[str] | None,
    rounds: int,
    device: str,
    threads: int,
    json_path: Path | None,
) -> None:
    """Run groups of rows, print their table, and write it if asked to."""
    import torch

    unknown = sorted(set(only or ()) - set(groups))
    if unknown:
        raise typer.BadParameter(f"there are no rows {unknown}, only {sorted(groups)}.")
    torch.set_num_threads(threads)
    found = []
    with _progress(counted=False) as progress:
        task = progress.add_task("measuring", total=None)
        for name in only or groups:
            for row in groups[name](torch.device(device), rounds, lambda: progress.advance(task)):
                found.append(row)
                progress.update(task, description=f"measured {row.name.strip()}")
    table = Table("", "measured", "promised", "kept", box=None)
    for row in found:
        sign = "≥" if row.at_least else "≤"
        unit = f" {row.unit}" if row.unit else ""
        kept = "[green]yes[/]" if row.kept else "[red]no[/]"
        promise = (f"{sign} {row.bound:g}", kept) if math.isfinite(row.bound) else ("", "")
        table.add_row(row.name, f"{row.value:.3g}{unit}", *promise)
    console.print(table)
    for row in found:
        if row.note:
            print(f"{row.name.strip()}: {row.note}")
    if json_path is not None:
        json_path.write_text(json.dumps([dataclasses.asdict(r) for r in found], indent=2) + "\n")


def _progress(counted: bool = True) -> Progress:
    columns = [TextColumn("{task.description:<28}"), BarColumn()]
    columns += [MofNCompleteColumn(), TimeRemainingColumn()] if counted else []
    return Progress(*columns, console=Console(stderr=True))


def _short(value: object) -> str:
    return f"{value:.4}" if isinstance(value, float) else repr(value)


def _spread(values: list[float], digits: int = 2) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


@contextmanager
def _one_line() -> Iterator[None]:
    """Print what a user can mend in one line, without a traceback."""
    try:
        yield
    except (ImportError, ValueError) as error:
        print(f"mixplug: error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
