"""``mixplug eval discovery``: unsupervised object discovery (Tables 6.5b and 6.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixplug.cli.eval import app
from mixplug.cli.eval.options import (
    Checkpoint,
    Device,
    Heads,
    Mean,
    Model,
    Part,
    Std,
    bar,
    print_results,
    read_colors,
)
from mixplug.cli.tools import Grid, read_grid


@app.command()
def discovery(
    root: Annotated[Path, typer.Argument(help="folder of VOC 2012: VOCdevkit/VOC2012")],
    checkpoint: Checkpoint,
    part: Part = None,
    boxes: Annotated[
        str,
        typer.Option(
            help="attention: box of the largest component of the attention mask; lost: box that "
            "LOST computes from keys"
        ),
    ] = "attention",
    mass: Annotated[float, typer.Option(help="share of the attention that the mask keeps")] = 0.8,
    size: Annotated[
        int | None, typer.Option(min=1, help="shorter side in pixels (default: that of the image)")
    ] = None,
    save: Annotated[int, typer.Option(min=0, help="number of images to draw, as PNG")] = 0,
    subset: Annotated[
        bool, typer.Option("--subset", help="allow a list of more or fewer than 1449 images")
    ] = False,
    heads: Heads = None,
    model: Model = None,
    mean: Mean = None,
    std: Std = None,
    grid: Grid = None,
    device: Device = None,
    out: Annotated[
        Path, typer.Option(help="output folder for discovery-BOXES.json and drawn images")
    ] = Path("output/eval/discovery"),
) -> None:
    """Find objects without labels on VOC 2012 val: Jaccard similarity and CorLoc."""
    from mixplug.optional import optional

    with bar() as tick:
        for module in ("timm", "torchvision"):
            optional(module, "timm", "mixplug eval discovery")
        optional("scipy", "metric", "mixplug eval discovery")
        from mixplug.data.voc import voc2012
        from mixplug.evaluation.frozen.discovery import discover
        from mixplug.evaluation.frozen.frozen import NORMALIZATION, Frozen
        from mixplug.evaluation.results import write_results

        pictures = out / f"pictures-{boxes}"
        images = voc2012(root, check=not subset)  # first, since the network takes longer
        frozen = Frozen.of(
            checkpoint, part, heads, read_grid(grid), device, model, **read_colors(mean, std)
        )
        results = discover(frozen, images, boxes, mass, size, save, pictures, tick)
        file = write_results(out, f"discovery-{boxes}", {"network": frozen.source, **results})
    print(frozen.source)
    print(frozen.images.line(NORMALIZATION))
    print(f"{len(images):,} images, boxes: {boxes}")
    print_results({"Jaccard": results["jaccard"], "CorLoc": results["corloc"]}, file)
    if save:
        print(f"pictures: {pictures.resolve()}")
