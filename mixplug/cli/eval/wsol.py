"""``mixplug eval wsol``: weakly supervised object localization (Table 3.7, Figure 3.5)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixplug.cli.eval import app
from mixplug.cli.eval.options import Device, bar, print_results
from mixplug.cli.tools import config_file

_SCORES = {
    "top-1": "top1",
    "top-1 localization": "top1_localization",
    "GT-known localization": "gt_known_localization",
    "MaxBoxAcc": "max_box_acc",
    "MaxBoxAccV2": "max_box_acc_v2",
}


@app.command()
def wsol(
    config: Annotated[str, typer.Argument(help="mm config, or its name in mm_configs")],
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint of a training run")],
    data_root: Annotated[
        str | None, typer.Option(help="folder CUB_200_2011 (default: that of the config)")
    ] = None,
    maps: Annotated[
        str | None,
        typer.Option(help="cam or attention (default: attention for VisionTransformer, else cam)"),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="threshold of top-1 localization, in [0, 1)")
    ] = 0.15,
    steps: Annotated[
        int, typer.Option(min=1, help="number of thresholds to choose the best from")
    ] = 100,
    show: Annotated[int, typer.Option(min=0, help="number of images to draw, as PNG")] = 16,
    subset: Annotated[
        bool, typer.Option("--subset", help="allow lists of more or fewer than 5794 images")
    ] = False,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="output folder for wsol.json and wsol.png")] = Path(
        "output/eval/wsol"
    ),
) -> None:
    """Localize birds with heat maps of a classifier: top-1 localization, MaxBoxAcc, MaxBoxAccV2."""
    from mixplug.optional import optional

    with bar() as tick:
        optional("mmpretrain", "mm", "mixplug eval wsol")
        for module in ("scipy.ndimage", "matplotlib"):
            optional(module, "card", "mixplug eval wsol")
        path = config_file(config)
        from mixplug.evaluation.results import write_results
        from mixplug.evaluation.wsol import localize
        from mixplug.from_config.wsol import wsol_of
        from mixplug.viz.localization import figure

        changed: dict[str, object] = {"test_dataloader.dataset.check": False} if subset else {}
        if data_root is not None:
            changed["test_dataloader.dataset.data_root"] = data_root
        subject = wsol_of(path, checkpoint, maps, device, changed)
        results, shown = localize(
            subject.heat_maps, subject.batches(), subject.total, threshold, steps, show, tick
        )
        facts = {"config": path.name, "checkpoint": str(checkpoint), **subject.facts()}
        file = write_results(out, "wsol", {**facts, **results})
        if shown:
            figure(shown, subject.class_names, out / "wsol.png", _title(checkpoint, results))
    print(f"{results['count']:,} images, {facts['maps']}")
    print_results({name: results[key] for name, key in _SCORES.items()}, file)
    if shown:
        print(f"png: {(out / 'wsol.png').resolve()}")


def _title(checkpoint: Path, results: dict[str, float]) -> str:
    return (
        f"{checkpoint.name}: top-1 localization {results['top1_localization']:.1f} % at "
        f"{results['threshold']:g}, MaxBoxAccV2 {results['max_box_acc_v2']:.1f} %"
    )
