"""Options and output that the commands of ``mixplug eval`` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixplug.cli.screen import one_line, progress

if TYPE_CHECKING:
    from mixplug.evaluation.results import Tick

Checkpoint = Annotated[
    str,
    typer.Argument(
        help="checkpoint of mixplug, timm, mmpretrain, mmseg, DINO, DoRA, DINOv2, MAE or Hugging "
        "Face's transformers; or timm:NAME"
    ),
]
Part = Annotated[str | None, typer.Option(help="part of the checkpoint: teacher, student or model")]
Heads = Annotated[
    int | None, typer.Option(min=1, help="attention heads, if not one per 64 channels")
]
Model = Annotated[
    str | None,
    typer.Option(help="timm model whose weights these are, if the checkpoint does not say it"),
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="mean of the images as R,G,B, in [0, 1] or [0, 255] (default: that of the checkpoint)"
    ),
]
Std = Annotated[
    str | None,
    typer.Option(help="standard deviation of the images (default: that of the checkpoint)"),
]
Crop = Annotated[
    float | None,
    typer.Option(
        help="share of the resized shorter side that the center crop keeps (default: that of the "
        "checkpoint)"
    ),
]
Interpolation = Annotated[
    str | None,
    typer.Option(help="bicubic, bilinear, ... of resizing (default: that of the checkpoint)"),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps (default: a GPU if there is one)")
]
Workers = Annotated[int, typer.Option(min=0, help="processes that read images")]
Folders = Annotated[Path, typer.Argument(help="folder with train/CLASS/ and val/CLASS/ of images")]


def read_colors(mean: str | None, std: str | None) -> dict[str, tuple[float, ...]]:
    """Values of --mean and --std that are given, such as '0.5,0.5,0.5'.

    Raises:
        ValueError: the text has another form.
    """
    found = {}
    for option, text in (("mean", mean), ("std", std)):
        if text is None:
            continue
        try:
            found[option] = tuple(float(part) for part in text.replace(" ", ",").split(",") if part)
        except ValueError:
            found[option] = ()
        if len(found[option]) not in (1, 3):
            raise ValueError(f"--{option} needs one number or three, R,G,B; got {text!r}.")
    return {name: 3 * values if len(values) == 1 else values for name, values in found.items()}


@contextmanager
def bar() -> Iterator[Tick]:
    """Show a progress bar with the remaining time; print errors of the user in one line.

    The bar appears at the first tick, since most errors are raised before it.
    """
    with one_line(), ExitStack() as stack:
        shown = progress()
        task = shown.add_task("", total=None)

        def tick(done: int, total: int, what: str) -> None:
            shown.update(task, completed=done, total=total, description=what)
            if not shown.live.is_started:
                stack.enter_context(shown)

        yield tick


def print_results(results: Mapping[str, float], file: Path) -> None:
    """Print each result in percent, and the path of the results file."""
    for name, value in results.items():
        print(f"{name}: {value:.2f} %")
    print(f"{file.suffix[1:]}: {file.resolve()}")
