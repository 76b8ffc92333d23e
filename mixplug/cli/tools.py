"""``mixplug train`` and ``mixplug test``: run the tools of mmpretrain, mmdet and mmseg.

The key ``mixup`` works in the configs.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from mixplug.cli.screen import one_line

Grid = Annotated[
    str | None,
    typer.Option(help="ROWSxCOLUMNS of the checkpoint's patches, if the grid is not square"),
]
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}  # settings of these commands


def train(context: typer.Context, config: Annotated[str, typer.Argument(help="mm config")]) -> None:
    """Train an mm config, which may have the key mixup, with its framework's tools/train.py.

    CONFIG is a path, or the name of a config in mm_configs. Its default_scope selects the
    framework: mmpretrain, mmdet or mmseg. All other arguments go to the tool.
    """
    _mm_tool("train", config, context.args)


def test(
    context: typer.Context,
    config: Annotated[str, typer.Argument(help="mm config")],
    checkpoint: Annotated[str, typer.Argument(help="checkpoint of a training run")],
) -> None:
    """Test a checkpoint with its framework's tools/test.py. All other arguments go to the tool."""
    if "://" not in checkpoint and not Path(checkpoint).expanduser().is_file():
        raise typer.BadParameter(f"there is no checkpoint {checkpoint}.")
    _mm_tool("test", config, [checkpoint, *context.args])


def find_config(name: str) -> Path:
    """Find a config by its path, or by its name below mm_configs.

    Raises:
        typer.BadParameter: no such file; the message suggests similar names.
    """
    import difflib

    from mixplug.image_files import hidden

    if Path(name).is_file():
        return Path(name)
    root = Path(__file__).parents[2] / "mm_configs"
    found = (path for path in root.rglob("*.py") if not hidden(path.name))
    shipped = {path.stem: path for path in found if "_base_" not in path.parts}
    stem = Path(name).name.removesuffix(".py")
    if stem in shipped:
        return shipped[stem]
    in_folder = [str(p) for p in Path(name).parent.glob("*.py") if not hidden(p.name)]
    nearest = difflib.get_close_matches(name, in_folder, n=2, cutoff=0.7)
    nearest += difflib.get_close_matches(stem, shipped, n=3, cutoff=0.3)
    raise typer.BadParameter(
        f"{name} is neither a file nor the name of a config in mm_configs. "
        f"Nearest: {', '.join(nearest) or 'none'}."
    )


def config_file(name: str) -> Path:
    """As :func:`find_config`, for commands that print errors in one line.

    Raises:
        ValueError: no such file; the message suggests similar names.
    """
    try:
        return find_config(name)
    except typer.BadParameter as error:
        raise ValueError(error.message) from None


def read_grid(text: str | None) -> tuple[int, int] | None:
    """Parse ROWSxCOLUMNS to (rows, columns)."""
    if text is None:
        return None
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise typer.BadParameter(f"--grid needs ROWSxCOLUMNS, such as 14x14; got {text!r}.")
    return int(rows), int(columns)


def _mm_tool(name: str, config: str, arguments: list[str]) -> None:
    from mixplug.cli.checkpoints import check_checkpoints, safe_loading
    from mixplug.optional import optional

    path = find_config(config)
    with one_line():
        optional("mmpretrain", "mm", f"mixplug {name}")
        optional(
            "mixplug.mm", "mm", "The mixup key"
        )  # first: it makes mmseg's base configs available
        from mmengine.config import Config

        found = Config.fromfile(path, import_custom_modules=False)
        scope = found.get("default_scope")
        scope = scope if scope in ("mmdet", "mmseg") else "mmpretrain"
        package = optional(scope, "mm" if scope == "mmpretrain" else scope, f"{path.name}")
        check_checkpoints(name, found, str(path), arguments)
    tool = Path(package.__file__).parent / ".mim" / "tools" / f"{name}.py"
    if not tool.is_file():  # editable install: the tools are at the root of the repository
        tool = Path(package.__file__).parents[1] / "tools" / f"{name}.py"
    sys.argv = [str(tool), str(path), *arguments]
    with safe_loading():
        runpy.run_path(str(tool), run_name="__main__")
