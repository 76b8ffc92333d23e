"""``mixplug bench``: measured ratios, their bounds, and whether this run met them."""

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

app = typer.Typer(no_args_is_help=True, help="Measure speed, as ratios within one run.")

Rounds = Annotated[int, typer.Option(min=1, help="number of interleaved rounds")]
Device = Annotated[str, typer.Option(help="device, such as cpu or cuda")]
Threads = Annotated[
    int,
    typer.Option(min=1, help="CPU threads; with more than one, other processes disturb more"),
]
RowsFile = Annotated[Path | None, typer.Option("--json", help="write the rows to this file")]


@app.command()
def mixers(
    rounds: Rounds = 5,
    device: Device = "cpu",
    threads: Threads = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help="measure only head, step, probe, sinkhorn or import; repeatable"),
    ] = None,
    json_path: RowsFile = None,
) -> None:
    """Measure mixers, and compare the ratios with their bounds."""
    from mixplug.bench import mixers as groups

    _run(groups.GROUPS, only, rounds, device, threads, json_path)


@app.command()
def metric(
    rounds: Rounds = 5,
    device: Device = "cpu",
    threads: Threads = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help="measure only loss, head, step or retrieval; repeatable"),
    ] = None,
    json_path: RowsFile = None,
) -> None:
    """Measure metric learning, and compare the ratios with their bounds."""
    from mixplug.bench import metric as groups

    _run(groups.GROUPS, only, rounds, device, threads, json_path)


@app.command()
def dora(
    rounds: Rounds = 4,
    device: Device = "cpu",
    threads: Threads = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="measure only step, eager or clips; repeatable")
    ] = None,
    json_path: RowsFile = None,
) -> None:
    """Measure DoRA, and compare the ratios with their bounds."""
    from mixplug.bench import dora as groups

    _run(groups.GROUPS, only, rounds, device, threads, json_path)


@app.command()
def transfer(
    rounds: Rounds = 5,
    device: Device = "cpu",
    threads: Threads = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="measure only vit, roi or davis; repeatable")
    ] = None,
    json_path: RowsFile = None,
) -> None:
    """Measure the cost of the backbone and of the key mixup in detectors, and label propagation."""
    from mixplug.bench import transfer as groups

    _run(groups.GROUPS, only, rounds, device, threads, json_path)


@app.command("eval")
def evaluation(
    images: Annotated[int, typer.Option(min=512, help="number of 32 x 32 images")] = 10_000,
    device: Device = "cpu",
    threads: Threads = 1,
    json_path: RowsFile = None,
) -> None:
    """Measure a reliability card relative to the forward and backward passes that it needs."""
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
    """Run groups of rows, print their table, and write it to a file if requested."""
    import torch

    unknown = sorted(set(only or ()) - set(groups))
    if unknown:
        raise typer.BadParameter(f"--only must be in {sorted(groups)}, got {unknown}.")
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
    table = Table("", "measured", "bound", "met", box=None)
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        unit = f" {row.unit}" if row.unit else ""
        met = "[green]yes[/]" if row.met else "[red]no[/]"
        bound = (f"{sign} {row.bound:g}", met) if math.isfinite(row.bound) else ("", "")
        table.add_row(row.name, f"{row.value:.3g}{unit}", *bound)
    return table
