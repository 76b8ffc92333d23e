"""``mixplug weights``: checkpoints looked into, compared with a model, and converted."""

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

Checkpoint = Annotated[Path, typer.Argument(help=".pth or .safetensors, of any of these")]
Part = Annotated[
    str | None, typer.Option(help="teacher, ema, model or student; the first there is if not named")
]
_COLORS = {"loaded": "green", "resized": "cyan", "unexpected": "yellow"} | dict.fromkeys(
    ("missing", "mismatched"), "red"
)


@app.command()
def convert(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Argument(help=".safetensors or .pth")],
    to: Annotated[str, typer.Option(help="timm, mmpretrain, mmseg or dino")],
    part: Part = None,
    grid: Annotated[
        str | None, typer.Option(help="ROWSxCOLUMNS of patches, to resize positions to")
    ] = None,
) -> None:
    """Write one network of a checkpoint under the names of another host."""
    from mixplug.weights import convert as job

    with one_line():
        done = job(checkpoint, out, part, to, read_grid(grid))
    numbers = sum(tensor.numel() for tensor in done.state.values())
    print(f"from: {done.source}, named as in {done.layout}")
    print(f"written: {len(done.state)} tensors, {numbers:,} numbers, named as in {to}")
    if grid is not None:
        print(f"grid: {grid}, which no file tells if it is no square: name it by --grid again")
    if done.left_out:
        print(f"left out: {', '.join(done.left_out)}")
    print(f"file: {out.resolve()}")


@app.command()
def check(
    checkpoint: Checkpoint,
    model: Annotated[str | None, typer.Option(help="name of a timm model to load into")] = None,
    config: Annotated[
        str | None, typer.Option(help="mm config with a backbone to load into")
    ] = None,
    part: Part = None,
    grid: Grid = None,
    heads: Annotated[
        int | None, typer.Option(help="of the attention, without a model; one per 64 channels")
    ] = None,
    min_loaded: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="exit with 1 below this share of the model's numbers; from 0.99 on also where any "
            "tensor lacks or loses its place",
        ),
    ] = 0.99,
) -> None:
    """Say shape by shape what a model would get of a checkpoint; without a model, what is in it.

    What would be refused by mixplug.Pretrained with this min_loaded exits with 1, and says why.
    """
    if model is not None and config is not None:
        raise typer.BadParameter("--model and --config are two models: name one.")
    from mixplug.weights import refusal

    with one_line():
        if model is None and config is None:
            _say_what_is_in(checkpoint, part, read_grid(grid), heads)
            return
        report = _report(checkpoint, part, model, config, read_grid(grid))
        _show(report.rows(), ("", "name", "checkpoint", "model"))
        print(report.line())
        why = refusal(report, min_loaded)
        if why:
            raise ValueError(f"{why}.")


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


def _say_what_is_in(
    checkpoint: Path, part: str | None, grid: tuple[int, int] | None, heads: int | None
) -> None:
    from mixplug.weights import Report, parts, read
    from mixplug.weights import part as part_of
    from mixplug.weights.vit import described

    found = read(checkpoint)
    chosen = part_of(found, part, checkpoint.name)
    shapes = {name: tuple(tensor.shape) for name, tensor in chosen.backbone.items()}
    _show([row[1:3] for row in Report(shapes).rows()], ("name", "shape"))
    for other in parts(found).values():
        head = f", and a head of {len(other.head)}" if other.head else ""
        mark = "*" if other.name == chosen.name else " "
        print(f"{mark} {other}: {len(other.backbone)} tensors{head}")
    print(f"{chosen.name}: {described(chosen.backbone, grid, heads)}")


def _show(rows: Sequence[Sequence[str]], titles: Sequence[str]) -> None:
    table = Table(*titles, box=None)
    for what, *cells in rows:
        color = _COLORS.get(what)
        table.add_row(f"[{color}]{what}[/]" if color else what, *cells)
    console().print(table)
