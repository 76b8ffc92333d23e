"""Output of commands: the console, a progress bar, and errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def console() -> Console:
    """Console for tables, as wide as the terminal is now."""
    return Console(soft_wrap=False)


def progress(counted: bool = True) -> Progress:
    """Progress bar on stderr, so a table on stdout can be piped."""
    columns = [TextColumn("{task.description:<28}"), BarColumn()]
    columns += [MofNCompleteColumn(), TimeRemainingColumn()] if counted else []
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def one_line() -> Iterator[None]:
    """Print errors that a user can fix in one line, without a traceback."""
    try:
        yield
    except (ImportError, ValueError) as error:
        print(f"mixplug: error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
