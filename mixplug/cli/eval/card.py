"""``mixplug eval card``: reliability cards of classifiers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mixplug.cli.eval import app
from mixplug.cli.eval.options import (
    Crop,
    Device,
    Interpolation,
    Mean,
    Std,
    Workers,
    bar,
    read_colors,
)
from mixplug.cli.screen import console
from mixplug.cli.tools import config_file

if TYPE_CHECKING:
    from mixplug.evaluation.card import Card, Data, Settings, Subject


@app.command()
def card(
    config: Annotated[
        str, typer.Argument(help="mm config, or its name in mm_configs; or timm:NAME")
    ],
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            help="checkpoints; the folder of a run gives its last and its best checkpoint"
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="for timm: folder of images, val/CLASS/ and train/CLASS/")
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="evaluate only this part: clean, robustness, calibration, ood, representation, "
            "attention or speed; repeatable (default: all parts)"
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="fgsm, pgd or apgd, with settings such as pgd:eps=8/255,step=2/255,iters=20; "
            "repeatable (default: fgsm:eps=8/255 and pgd:eps=4/255,step=2/255,iters=10)"
        ),
    ] = None,
    ood: Annotated[
        list[str] | None,
        typer.Option(
            help="folder of out-of-distribution images, or NAME=FOLDER, in addition to those of "
            "the config; repeatable"
        ),
    ] = None,
    fit: Annotated[
        str, typer.Option(help="how these images get the size of the test images: resize or crop")
    ] = "resize",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="images per batch (default: 256)")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="random seed (default: 0)")] = None,
    workers: Workers = 0,
    mean: Mean = None,
    std: Std = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="for timm: side of the test images (default: of the checkpoint)"),
    ] = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="output folder for the card and its cache")] = Path(
        "output/card"
    ),
) -> None:
    """Make a reliability card that compares checkpoints: JSON, Markdown and one HTML page.

    Interrupted runs resume if --out is the same. Results of the same weights, images and settings
    are taken from the cache.
    """
    try:
        with bar() as tick:
            require("mixplug eval card")
            from mixplug.evaluation.card import make_card
            from mixplug.evaluation.card.report import write_card
            from mixplug.evaluation.results import best_device
            from mixplug.weights.vit import TIMM

            options = {
                "parts": part, "batch_size": batch_size, "seed": seed, "workers": workers,
                "attacks": attack and _attacks(attack),
                "ood": [_outside(text, fit) for text in ood or ()],
            }  # fmt: skip
            given = {name: value for name, value in options.items() if value not in (None, [])}
            images = {
                "size": size, "crop": crop, "interpolation": interpolation, **read_colors(mean, std)
            }  # fmt: skip
            images = {name: value for name, value in images.items() if value is not None}
            host = _of_timm if config.startswith(TIMM) else _of_mm
            subjects, measured, settings = host(
                config, checkpoints or [], data, given, device or best_device(), images
            )
            made = make_card(subjects, measured, settings, out, tick)
            tick(1, 1, "drawing")
            files = write_card(made, out, list(measured.classes))
            tick(1, 1, "done")
    except KeyboardInterrupt:
        print("Interrupted. Run the command again to resume.", file=sys.stderr)
        raise typer.Exit(130) from None
    show(made, files)
    if not any(numbers for found in made.results.values() for numbers in found.values()):
        raise typer.Exit(1)


def require(what: str) -> None:
    """Check that the packages of the extra ``card`` are installed.

    Raises:
        ImportError: one of them is missing; the message says how to install it.
    """
    from mixplug.optional import optional

    for module in ("sklearn", "matplotlib", "jinja2"):
        optional(module, "card", what)


def show(made: Card, files: Sequence[Path]) -> None:
    """Print the main lines of a card, warnings, missing parts, and the paths of its files."""
    from mixplug.evaluation.card.lines import lines_of

    table = Table("", *map(escape, made.names), box=None)
    section = ""
    for line in lines_of(made):
        if not line.main:
            continue  # too much for a terminal; it is in the files
        if line.section != section:
            section = line.section
            table.add_row(f"[bold]{escape(section)}[/]")
        cells = zip(line.cells, line.best, strict=True)
        shown = (f"[bold]{cell}[/]" if best else cell for cell, best in cells)
        table.add_row(f"  {escape(line.heading)}", *shown)
    console().print(table)
    for text in made.facts["warnings"]:
        print(f"warning: {text}")
    for name, parts in made.missing.items():
        for part, why in parts.items():
            print(f"{name}: no {part}: {why}")
    for file in files[:3]:
        print(f"{file.suffix[1:]}: {file.resolve()}")


def _outside(text: str, fit: str) -> dict[str, str]:
    """An entry of card.ood from FOLDER or NAME=FOLDER."""
    name, found, root = text.rpartition("=")
    return {"root": root, "fit": fit, "name": name if found else root}


def _attacks(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of attacks by name, or by their text if several are of one kind."""
    found = [(text, *_attack(text)) for text in texts]
    kinds = [kind for _, kind, _ in found]
    return {
        kind if kinds.count(kind) == 1 else text: {"type": kind, **keys}
        for text, kind, keys in found
    }


def _attack(text: str) -> tuple[str, dict[str, float]]:
    """Name and settings of an attack from 'pgd:eps=8/255,iters=20'.

    Raises:
        ValueError: the text has another form.
    """
    name, _, rest = text.partition(":")
    keys = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        above, _, below = value.partition("/")
        try:
            keys[key] = float(above) / (float(below) if below else 1)
        except (ValueError, ZeroDivisionError):
            raise ValueError(
                f"--attack needs the form pgd:eps=8/255,step=2/255,iters=20, got {text!r}."
            ) from None
    return name, keys


def _settings(given: dict[str, Any]) -> Settings:
    """Settings of a config and of the options; an unknown key is an error in one line, too."""
    from mixplug.evaluation.card import Settings

    try:
        return Settings.of(given)
    except KeyError as error:
        raise ValueError(error.args[0]) from None


def _of_mm(
    config: str,
    checkpoints: Sequence[Path],
    data: Path | None,
    given: dict[str, Any],
    device: str,
    images: dict[str, Any],
) -> tuple[list[Subject], Data, Settings]:
    """Networks and data of an mm config."""
    from mixplug.optional import optional

    optional("mmpretrain", "mm", "mixplug eval card")
    from mixplug.evaluation.card.checkpoints import expand, names_of
    from mixplug.from_config import card as mm_card
    from mixplug.from_config.config import read_config

    read = read_config(config_file(config))
    if data is not None or not checkpoints:
        raise ValueError(
            "An mm config needs a checkpoint, and its test_dataloader instead of --data."
        )
    if images:
        raise ValueError(
            f"An mm config says itself how images are prepared, in data_preprocessor and the test "
            f"pipeline: change these instead of {', '.join(f'--{name}' for name in images)}."
        )
    own = dict(read.get("card") or {})
    own["ood"] = [*own.get("ood", ()), *given.pop("ood", ())]
    settings = _settings({**own, **given})
    paths = expand(checkpoints)
    measured = mm_card.data_of(read, settings)
    named = zip(paths, names_of(paths), strict=True)
    return [mm_card.subject_of(read, p, name, device) for p, name in named], measured, settings


def _of_timm(
    config: str,
    checkpoints: Sequence[Path],
    data: Path | None,
    given: dict[str, Any],
    device: str,
    images: dict[str, Any],
) -> tuple[list[Subject], Data, Settings]:
    """A timm model with its pretrained weights or with those of checkpoints, and its data."""
    from mixplug.optional import optional

    optional("timm", "timm", "mixplug eval card")
    from mixplug.evaluation.card.checkpoints import expand, names_of
    from mixplug.hosts.timm import card as timm_card
    from mixplug.weights.vit import TIMM

    if data is None:
        raise ValueError("timm:NAME needs --data, a folder of images.")
    settings = _settings(given)
    model = config.removeprefix(TIMM)
    paths = expand(checkpoints)
    wanted = list(zip(paths, names_of(paths), strict=True)) or [(None, model)]
    subjects = [timm_card.subject_of(model, path, name, device, **images) for path, name in wanted]
    timm_card.require_same_images(subjects)
    return subjects, timm_card.data_of(subjects[0], data, settings), settings
