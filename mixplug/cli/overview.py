"""``mixplug list`` and ``mixplug doctor``: what there is, and what of it works."""

from __future__ import annotations

import warnings

import typer
from rich.table import Table

from mixplug.cli.screen import console


def list_() -> None:
    """List what the catalog offers: mixers, losses, metrics and methods, here and of plugins."""
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
    console().print(table)


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
    console().print(table)
    raise typer.Exit(any(finding.state == "broken" for finding in findings))


def _short(value: object) -> str:
    return f"{value:.4}" if isinstance(value, float) else repr(value)
