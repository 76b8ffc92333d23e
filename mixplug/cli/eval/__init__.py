"""``mixplug eval``: what frozen features are worth, one command for each evaluation."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Evaluate frozen features on official data sets.")

from mixplug.cli.eval import davis, discovery, knn, linear  # noqa: E402, F401  registers
