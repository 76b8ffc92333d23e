"""``mixplug train`` and ``mixplug test``: the hosts' own tools, and the key mixup understood."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from mixplug.cli.screen import one_line

Grid = Annotated[
    str | None, typer.Option(help="ROWSxCOLUMNS of the patches it was trained on, if no square")
]
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}  # settings of these commands


def train(context: typer.Context, config: Annotated[str, typer.Argument(help="mm config")]) -> None:
    """Train an mm config with its host's own tools/train.py, and the key mixup understood.

    CONFIG is a path, or the name of a config in mm_configs. Its default_scope says the host:
    mmpretrain, mmdet or mmseg. Further arguments are the tool's.
    """
    _mm_tool("train", config, context.args)


def test(
    context: typer.Context,
    config: Annotated[str, typer.Argument(help="mm config")],
    checkpoint: Annotated[str, typer.Argument(help="of a training run")],
) -> None:
    """Test a checkpoint with the host's own tools/test.py. Further arguments are the tool's."""
    if "://" not in checkpoint and not Path(checkpoint).expanduser().is_file():
        raise typer.BadParameter(f"there is no checkpoint {checkpoint}.")
    _mm_tool("test", config, [checkpoint, *context.args])


def find_config(name: str) -> Path:
    """A config by its path, or by its name below mm_configs.

    Raises:
        typer.BadParameter: no such file; it names the nearest.
    """
    import difflib

    if Path(name).is_file():
        return Path(name)
    root = Path(__file__).parents[2] / "mm_configs"
    shipped = {path.stem: path for path in root.rglob("*.py") if "_base_" not in path.parts}
    stem = Path(name).name.removesuffix(".py")
    if stem in shipped:
        return shipped[stem]
    beside = [str(path) for path in Path(name).parent.glob("*.py")]
    nearest = difflib.get_close_matches(name, beside, n=2, cutoff=0.7)
    nearest += difflib.get_close_matches(stem, shipped, n=3, cutoff=0.3)
    raise typer.BadParameter(
        f"{name} is neither a file nor the name of a config in mm_configs. "
        f"Nearest: {', '.join(nearest) or 'none'}."
    )


def config_file(name: str) -> Path:
    """As :func:`find_config`, for commands whose errors are in one line.

    Raises:
        ValueError: no such file; it names the nearest.
    """
    try:
        return find_config(name)
    except typer.BadParameter as error:
        raise ValueError(error.message) from None


def read_grid(text: str | None) -> tuple[int, int] | None:
    """(rows, columns) of ROWSxCOLUMNS."""
    if text is None:
        return None
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise typer.BadParameter(f"--grid needs ROWSxCOLUMNS, such as 14x14, got {text!r}.")
    return int(rows), int(columns)


def _mm_tool(name: str, config: str, arguments: list[str]) -> None:
    from mixplug.cli.checkpoints import no_code_loaded, refuse
    from mixplug.optional import optional

    path = find_config(config)
    with one_line():
        optional("mmpretrain", "mm", f"mixplug {name}")
        optional("mixplug.mm", "mm", "The mixup key")  # first: it finds bases of mmseg's fork
        from mmengine.config import Config

        found = Config.fromfile(path, import_custom_modules=False)
        host = found.get("default_scope")
        host = host if host in ("mmdet", "mmseg") else "mmpretrain"
        package = optional(host, "mm" if host == "mmpretrain" else host, f"{path.name}")
        refuse(name, found, str(path), arguments)
    tool = Path(package.__file__).parent / ".mim" / "tools" / f"{name}.py"
    if not tool.is_file():  # an editable install keeps its tools at the root of its repository
        tool = Path(package.__file__).parents[1] / "tools" / f"{name}.py"
    sys.argv = [str(tool), str(path), *arguments]
    with no_code_loaded():
        runpy.run_path(str(tool), run_name="__main__")
