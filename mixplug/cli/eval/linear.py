"""``mixplug eval linear``: Tables 6.5a and 6.6."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mixplug.cli.eval import app
from mixplug.cli.eval.options import Checkpoint, Device, Folders, Heads, Part, Workers, bar, say
from mixplug.cli.tools import Grid, read_grid


@app.command()
def linear(
    root: Folders,
    checkpoint: Checkpoint,
    part: Part = None,
    epochs: Annotated[int, typer.Option(min=1, help="of training")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="images of a step")] = 1024,
    lr: Annotated[float, typer.Option(help="learning rate for 256 images")] = 0.001,
    weight_decay: Annotated[float, typer.Option(min=0, help="of SGD")] = 0.0,
    blocks: Annotated[
        int, typer.Option(min=1, help="last blocks whose class tokens are classified; 1 for ViT-B")
    ] = 4,
    size: Annotated[int, typer.Option(min=1, help="side of the crops in pixels")] = 224,
    seed: Annotated[int, typer.Option(help="of what is drawn at random")] = 0,
    workers: Workers = 4,
    heads: Heads = None,
    grid: Grid = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="folder for linear.json and checkpoint.pth")] = Path(
        "output/eval/linear"
    ),
) -> None:
    """Train a linear classifier of frozen features, by DINO's protocol.

    Stopped and called again with the same --out, it goes on from the last epoch that it ended.
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

            probe = Probe(
                epochs=epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay,
                blocks=blocks, size=size, seed=seed,
            )  # fmt: skip
            train, val = image_folders(root)  # before the network, which takes longer
            frozen = Frozen.of(checkpoint, part, heads, read_grid(grid), device)
            results = job(frozen, train, val, out, probe, workers, tick)
            file = write_results(out, "linear", {"network": frozen.source, **results})
    except KeyboardInterrupt:
        print("Stopped. Call it again to go on from the last epoch that ended.", file=sys.stderr)
        raise typer.Exit(130) from None
    print(frozen.source)
    print(f"{len(val):,} images of {len(val.classes):,} classes, {epochs} epochs of {len(train):,}")
    say({"top-1": results["top1"], "top-5": results["top5"]}, file)
