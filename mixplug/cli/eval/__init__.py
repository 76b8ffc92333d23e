"""``mixplug eval``: one command for each evaluation of checkpoints."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Evaluate checkpoints.")

from mixplug.cli.eval import card, davis, discovery, knn, linear, wsol  # noqa: E402, F401  registers
