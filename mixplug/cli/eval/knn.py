"""``mixplug eval knn``: k-NN classification of frozen features (Tables 6.5a and 6.6)."""

from __future__ import annotations

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

_KS = [20]


@app.command()
def knn(
    root: Folders,
    checkpoint: Checkpoint,
    part: Part = None,
    k: Annotated[
        list[int], typer.Option("-k", min=1, help="number of neighbors; repeatable")
    ] = _KS,
    temperature: Annotated[float, typer.Option(help="temperature of the votes")] = 0.07,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="side of the center crop in pixels (default: of the checkpoint)"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="images per batch")] = 256,
    workers: Workers = 4,
    heads: Heads = None,
    model: Model = None,
    mean: Mean = None,
    std: Std = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    grid: Grid = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="output folder for knn.json")] = Path("output/eval/knn"),
) -> None:
    """Classify the images of val by their nearest neighbors in train (k-NN of frozen features)."""
    from mixplug.optional import optional

    with bar() as tick:
        for module in ("timm", "torchvision"):
            optional(module, "timm", "mixplug eval knn")
        from mixplug.data.image_folders import image_folders
        from mixplug.evaluation.frozen.frozen import Frozen
        from mixplug.evaluation.frozen.knn import knn as job
        from mixplug.evaluation.results import write_results
        from mixplug.weights.preprocessing import FIELDS

        train, val = image_folders(root)  # first, since the network takes longer
        frozen = Frozen.of(
            checkpoint, part, heads, read_grid(grid), device, model, FIELDS, size=size,
            crop=crop, interpolation=interpolation, **read_colors(mean, std),
        )  # fmt: skip
        results = job(frozen, train, val, k, temperature, size, batch_size, workers, tick)
        file = write_results(out, "knn", {"network": frozen.source, **results})
    print(frozen.source)
    print(frozen.images.line())
    print(f"{len(val):,} images of {len(val.classes):,} classes by {len(train):,} neighbors")
    print_results({name: value for name, value in results.items() if name.startswith("knn@")}, file)
