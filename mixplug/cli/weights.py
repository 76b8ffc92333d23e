"""``mixplug weights``: inspect checkpoints, compare them with a model, and convert them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mixplug.cli.screen import console, one_line
from mixplug.cli.tools import Grid, find_config, read_grid

if TYPE_CHECKING:
    from mixplug.weights.report import Report

app = typer.Typer(no_args_is_help=True, help="Weights between timm, mmpretrain, mmseg and DINO.")

Checkpoint = Annotated[
    Path, typer.Argument(help="checkpoint of any of these frameworks, .pth or .safetensors")
]
Part = Annotated[
    str | None,
    typer.Option(help="teacher, ema, model or student (default: the first that the file has)"),
]
_COLORS = {"loaded": "green", "resized": "cyan", "unexpected": "yellow"} | dict.fromkeys(
    ("missing", "mismatched"), "red"
)


@app.command()
def convert(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Argument(help="output file, .safetensors or .pth")],
    to: Annotated[str, typer.Option(help="target: timm, mmpretrain, mmseg or dino")],
    part: Part = None,
    grid: Annotated[
        str | None,
        typer.Option(help="resize position embeddings to a grid of ROWSxCOLUMNS patches"),
    ] = None,
) -> None:
    """Write one network of a checkpoint under the names of another framework."""
    from mixplug.weights import convert as job

    with one_line():
        done = job(checkpoint, out, part, to, read_grid(grid))
    numbers = sum(tensor.numel() for tensor in done.state.values())
    print(f"from: {done.source}, with the names of {done.layout}")
    print(f"written: {len(done.state)} tensors, {numbers:,} numbers, with the names of {to}")
    if grid is not None:
        print(f"grid: {grid}. The file does not store it: if it is not square, pass --grid again.")
    if done.left_out:
        print(f"left out: {', '.join(done.left_out)}")
    print(f"file: {out.resolve()}")


@app.command()
def check(
    checkpoint: Checkpoint,
    model: Annotated[
        str | None, typer.Option(help="compare with the timm model of this name")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="compare with the backbone of this mm config")
    ] = None,
    part: Part = None,
    grid: Grid = None,
    heads: Annotated[
        int | None,
        typer.Option(help="number of attention heads, without a model (default: width / 64)"),
    ] = None,
    min_loaded: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="exit with 1 if a smaller share of the model would be loaded; from 0.99 on, also "
            "if a needed tensor is missing or would be dropped",
        ),
    ] = 0.99,
) -> None:
    """List the tensors that a model would get from a checkpoint; without a model, its content.

    The exit code is 1, with the reason, if mixplug.Pretrained would refuse the load with this
    min_loaded.
    """
    if model is not None and config is not None:
        raise typer.BadParameter("--model and --config exclude each other: pass only one.")
    from mixplug.weights import refusal

    with one_line():
        if model is None and config is None:
            _print_content(checkpoint, part, read_grid(grid), heads)
            return
        report = _report(checkpoint, part, model, config, read_grid(grid))
        _print_table(report.rows(), ("", "name", "checkpoint", "model"))
        print(report.line())
        reason = refusal(report, min_loaded)
        if reason:
            raise ValueError(f"{reason}.")


def _report(
    checkpoint: Path,
    part: str | None,
    model: str | None,
    config: str | None,
    grid: tuple[int, int] | None,
) -> Report:
    from mixplug.models.vit import timm_model
    from mixplug.optional import optional
    from mixplug.weights import load_file

    if model is not None:
        return load_file(timm_model(model), checkpoint, part, 0, grid)
    optional("mmpretrain", "mm", "An mm config")
    from mixplug.from_config.config import backbone_of

    return load_file(backbone_of(find_config(str(config))), checkpoint, part, 0, grid)


def _print_content(
    checkpoint: Path, part: str | None, grid: tuple[int, int] | None, heads: int | None
) -> None:
    from mixplug.weights import Report, parts, preprocessing_of, read
    from mixplug.weights import part as part_of
    from mixplug.weights.vit import describe

    found = read(checkpoint)
    chosen = part_of(found, part, checkpoint.name)
    shapes = {name: tuple(tensor.shape) for name, tensor in chosen.backbone.items()}
    _print_table([row[1:3] for row in Report(shapes).rows()], ("name", "shape"))
    for other in parts(found).values():
        head = f", and a head of {len(other.head)}" if other.head else ""
        mark = "*" if other.name == chosen.name else " "
        print(f"{mark} {other}: {len(other.backbone)} tensors{head}")
    print(preprocessing_of(checkpoint, part, found=found).line())
    print(f"{chosen.name}: {describe(chosen.backbone, grid, heads)}")


def _print_table(rows: Sequence[Sequence[str]], titles: Sequence[str]) -> None:
    table = Table(*titles, box=None)
    for what, *cells in rows:
        color = _COLORS.get(what)
        table.add_row(f"[{color}]{what}[/]" if color else what, *cells)
    console().print(table)
