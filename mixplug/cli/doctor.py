"""``mixplug doctor``: whether the installation works, and which models can be mixed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mixplug.cli.screen import console, progress

if TYPE_CHECKING:
    from mixplug.hosts.checking import Row

app = typer.Typer(invoke_without_command=True)
_COLORS = {"ok": "green", "missing": "yellow", "refused": "yellow", "broken": "red"}


class Host(str, Enum):
    """Frameworks whose models can be checked."""

    timm = "timm"
    mmpretrain = "mmpretrain"


@app.callback()
def doctor(context: typer.Context) -> None:
    """Check what is installed, what is missing, and what does not work (exit code 1).

    `mixplug doctor models` checks in which models each mixer works.
    """
    if context.invoked_subcommand:
        return
    from mixplug.doctor import examine

    table = Table(box=None, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        findings = list(examine())
    for finding in findings:
        color = _COLORS[finding.state]
        table.add_row(finding.subject, Text(finding.seen), f"[{color}]{finding.state}[/]")
    console().print(table)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


@app.command()
def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models of timm, or configs of mmpretrain; one of every family if left out",
            show_default=False,
        ),
    ] = None,
    host: Annotated[Host, typer.Option(help="Whose models")] = Host.timm,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the results to this JSON file, and skip what is in it already"),
    ] = None,
) -> None:
    """Check with random weights in which models each mixer works (exit code 1 if one is broken).

    A mixer is ok in a model, or refused before training with a reason, or broken. One of every
    family takes an hour or two on a CPU; with --out an interrupted check resumes.
    """
    from mixplug.hosts.checking import Record, verdicts

    if host is Host.timm:
        from mixplug.hosts.timm.families import FAMILIES, subject
    else:
        from mixplug.hosts.mm.families import FAMILIES, subject
    wanted = names or list(FAMILIES)
    record = Record(host.value, out)
    with progress() as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = bar.add_task(host.value, total=len(wanted))
        for name in wanted:
            bar.update(task, description=name)
            if name not in record.models:
                stages, size = subject(name)
                record.add(name, verdicts(stages, size, host.value))
            bar.advance(task)
    _report({name: record.models[name] for name in wanted})


def _report(found: Mapping[str, list[Row]]) -> None:
    from mixplug.hosts.checking import faults, takes_all

    table = Table("model", "ok", "refused or broken", box=None, padding=(0, 2, 0, 0))
    for column in table.columns:
        column.overflow = "fold"
    for name, rows in found.items():
        fine = [row["mixer"] for row in rows if row["state"] == "ok"]
        reasons = faults(rows)
        rest = Text("\n").join(
            Text.assemble(", ".join(who), " ", (state, _COLORS[state]), f": {why}")
            for (state, why), who in reasons.items()
        )
        table.add_row(Text(name), "all" if not reasons else ", ".join(fine), rest)
    console().print(table)
    states = [row["state"] for rows in found.values() for row in rows]
    clean = sum(map(takes_all, found.values()))
    console().print(
        f"{clean} of {len(found)} models take every mixer. Of {len(states)} pairs of a model and a "
        f"mixer {states.count('refused')} are refused and {states.count('broken')} broken."
    )
    if "broken" in states:
        raise typer.Exit(1)
