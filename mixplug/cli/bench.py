"""``mixplug bench``: rows of ratios, what was promised, and whether this run kept it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mixplug.cli.screen import console, progress

if TYPE_CHECKING:
    from mixplug.bench.measure import Row

app = typer.Typer(no_args_is_help=True, help="Speed, as ratios within one run.")

Rounds = Annotated[int, typer.Option(min=1, help="of each alternative, taken in turns")]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...")]
Threads = Annotated[
    int, typer.Option(min=1, help="on the CPU; with more than one, other work disturbs more")
]
RowsFile = Annotated[Path | None, typer.Option("--json", help="write the rows here")]


@app.command()
def mixers(
    rounds: Rounds = 5,
    device: Device = "cpu",
    threads: Threads = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="head, step, probe, sinkhorn or import; repeatable")
    ] = None,
    json_path: RowsFile = None,
) -> None:
    """Print the ratios that are promised for mixers, and whether this run kept them."""
    from mixplug.bench import mixers as groups

    _run(groups.GROUPS, only, rounds, device, threads, json_path)


@app.command()
def metric(
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

    _run(groups.GROUPS, only, rounds, device, threads, json_path)


@app.command()
def dora(
    rounds: Rounds = 4,
    device: Device = "cpu",
    threads: Threads = 1,
    only: Annotated[list[str] | None, typer.Option(help="step, eager or clips; repeatable")] = None,
    json_path: RowsFile = None,
) -> None:
    """Print the ratios that are promised for DoRA, and whether this run kept them."""
    from mixplug.bench import dora as groups

    _run(groups.GROUPS, only, rounds, device, threads, json_path)


@app.command()
def transfer(
    rounds: Rounds = 5,
    device: Device = "cpu",
    threads: Threads = 1,
    only: Annotated[list[str] | None, typer.Option(help="vit, roi or davis; repeatable")] = None,
    json_path: RowsFile = None,
) -> None:
    """Print what backbone and mixup key cost in detectors, and how fast labels propagate."""
    from mixplug.bench import transfer as groups

    _run(groups.GROUPS, only, rounds, device, threads, json_path)


@app.command("eval")
def evaluation(
    images: Annotated[int, typer.Option(min=512, help="of 32 x 32 pixels")] = 10_000,
    device: Device = "cpu",
    threads: Threads = 1,
    json_path: RowsFile = None,
) -> None:
    """Print what a reliability card takes beside the forward and backward passes that it needs."""
    from functools import partial

    from mixplug.bench.card import card_rows

    _run({"card": partial(card_rows, images)}, None, 1, device, threads, json_path)


def _run(
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
    with progress(counted=False) as bar:
        task = bar.add_task("measuring", total=None)
        for name in only or groups:
            for row in groups[name](torch.device(device), rounds, lambda: bar.advance(task)):
                found.append(row)
                bar.update(task, description=f"measured {row.name.strip()}")
    console().print(_table(found))
    for row in found:
        if row.note:
            print(f"{row.name.strip()}: {row.note}")
    if json_path is not None:
        json_path.write_text(json.dumps([dataclasses.asdict(r) for r in found], indent=2) + "\n")


def _table(rows: Sequence[Row]) -> Table:
    table = Table("", "measured", "promised", "kept", box=None)
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        unit = f" {row.unit}" if row.unit else ""
        kept = "[green]yes[/]" if row.kept else "[red]no[/]"
        promise = (f"{sign} {row.bound:g}", kept) if math.isfinite(row.bound) else ("", "")
        table.add_row(row.name, f"{row.value:.3g}{unit}", *promise)
    return table
