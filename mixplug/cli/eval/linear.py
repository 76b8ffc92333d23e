"""``mixplug eval linear``: linear probe of frozen features (Tables 6.5a and 6.6)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mixplug.cli.eval import app
from mixplug.cli.eval.options import (
    Checkpoint,
    Crop,
    Device,
    Folders,
    Heads,
    Interpolation,
    Mean,
    Model,
    Part,
    Std,
    Workers,
    bar,
    print_results,
    read_colors,
)
from mixplug.cli.tools import Grid, read_grid


@app.command()
def linear(
    root: Folders,
    checkpoint: Checkpoint,
    part: Part = None,
    epochs: Annotated[int, typer.Option(min=1, help="training epochs")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="images per step")] = 1024,
    lr: Annotated[float, typer.Option(help="learning rate for a batch of 256 images")] = 0.001,
    weight_decay: Annotated[float, typer.Option(min=0, help="weight decay of SGD")] = 0.0,
    blocks: Annotated[
        int,
        typer.Option(min=1, help="number of last blocks whose class tokens are used; 1 for ViT-B"),
    ] = 4,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="side of the crops in pixels (default: of the checkpoint)"),
    ] = None,
    seed: Annotated[int, typer.Option(help="random seed")] = 0,
    workers: Workers = 4,
    heads: Heads = None,
    model: Model = None,
    mean: Mean = None,
    std: Std = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    grid: Grid = None,
    device: Device = None,
    out: Annotated[
        Path, typer.Option(help="output folder for linear.json and checkpoint.pth")
    ] = Path("output/eval/linear"),
) -> None:
    """Train a linear classifier on frozen features with the protocol of DINO.

    Interrupted runs resume from the last finished epoch if --out is the same.
    """
    from mixplug.optional import optional

    try:
        with bar() as tick:
            for module in ("timm", "torchvision"):
                optional(module, "timm", "mixplug eval linear")
            from mixplug.data.image_folders import image_folders
            from mixplug.evaluation.frozen.frozen import Frozen
            from mixplug.evaluation.frozen.linear import Probe
            from mixplug.evaluation.frozen.linear import linear as job
            from mixplug.evaluation.results import write_results
            from mixplug.weights.preprocessing import FIELDS

            probe = Probe(
                epochs=epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay,
                blocks=blocks, size=size, seed=seed,
            )  # fmt: skip
            train, val = image_folders(root)  # first, since the network takes longer
            frozen = Frozen.of(
                checkpoint, part, heads, read_grid(grid), device, model, FIELDS, size=size,
                crop=crop, interpolation=interpolation, **read_colors(mean, std),
            )  # fmt: skip
            results = job(frozen, train, val, out, probe, workers, tick)
            facts = {"network": frozen.source, "images": frozen.images.facts()}
            file = write_results(out, "linear", {**facts, **results})
    except KeyboardInterrupt:
        print("Interrupted. Run the command again to resume.", file=sys.stderr)
        raise typer.Exit(130) from None
    print(frozen.source)
    print(frozen.images.line())
    print(f"{len(val):,} images of {len(val.classes):,} classes, {epochs} epochs of {len(train):,}")
    print_results({"top-1": results["top1"], "top-5": results["top5"]}, file)
