"""The checkpoints that a host's tool is going to read, looked at before it runs.

mmengine reads what it cannot read safely a second time, running what is in it.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAMES = ("checkpoint", "pretrained", "load_from", "resume_from")  # keys of nothing but those
_DATA = ("dataloader", "evaluator", "dataset", "pipeline")  # pickles of these are no checkpoints
_SAVED = (".pth", ".pt", ".ckpt")


@dataclass(frozen=True)
class Named:
    """What may be the path of a checkpoint, and what names it.

    Attributes:
        text: the path, or any other value.
        where: the key, option or file that has it.
        sure: whether it can be nothing but a checkpoint.
        needed: whether the tool stops without it.
    """

    text: str
    where: str
    sure: bool = True
    needed: bool = False


def refuse(tool: str, config: Any, name: str, arguments: list[str]) -> None:
    """Refuse checkpoints with code in them, and those that will be missed.

    Looked at are ``load_from``, the one that work_dir/last_checkpoint names for --resume, all
    files that are checkpoints in the config's model and hooks, and all in the arguments.

    Args:
        tool: 'train' or 'test'; the first argument of a test is its checkpoint.
        config: of mmengine; not changed.
        name: its path, of which the tools make the work directory.
        arguments: of the tool.

    Raises:
        ValueError: naming the file and what names it; or see :func:`mixplug.weights.read.no_code`.
    """
    from mixplug.weights.read import could_be_torch, no_code

    seen = set()
    for named in _named(tool, config, name, arguments):
        file = Path(os.path.expanduser(named.text))  # as mmengine does
        if os.path.isfile(file):
            if named.sure or file.suffix in _SAVED or could_be_torch(file):
                if file not in seen:
                    no_code(file)
                seen.add(file)
        elif named.needed and "://" not in named.text:
            raise ValueError(f"There is no checkpoint {named.text}, which {named.where} names.")


@contextmanager
def no_code_loaded() -> Iterator[None]:
    """Have mmengine read local checkpoints only after a look, whatever asks for them."""
    from mmengine.runner.checkpoint import CheckpointLoader, load_from_local

    from mixplug.weights.read import no_code

    def after_a_look(filename: str, map_location: Any = None) -> Any:
        if os.path.isfile(os.path.expanduser(filename)):
            no_code(os.path.expanduser(filename))
        return load_from_local(filename, map_location)

    after_a_look.__name__ = load_from_local.__name__  # mmengine's log names it
    CheckpointLoader.register_scheme("", after_a_look, force=True)
    try:
        yield
    finally:
        CheckpointLoader.register_scheme("", load_from_local, force=True)


def _named(tool: str, config: Any, name: str, arguments: list[str]) -> Iterator[Named]:
    given, others = _parsed(arguments)
    merged = _merged(config, given.cfg_options)
    if tool == "test":
        yield Named(arguments[0], "the argument CHECKPOINT", needed=True)
    yield from (Named(text.rpartition("=")[2], "an argument", sure=False) for text in others)
    yield from _walk(given.cfg_options, "", trained=False)
    fresh = tool == "train" and given.resume is None
    if isinstance(merged.get("load_from"), str):
        yield Named(merged.load_from, "load_from", needed=fresh)
    if given.resume == "auto" or merged.get("resume"):
        places = {given.work_dir, merged.get("work_dir"), f"work_dirs/{Path(name).stem}"}
        for last in (Path(place) / "last_checkpoint" for place in places if place):
            if last.is_file():
                yield Named(last.read_text().strip(), str(last), needed=tool == "train")
    elif given.resume is not None:
        yield Named(given.resume, "--resume", needed=True)
    for key in ("model", "custom_hooks", "default_hooks"):
        yield from _walk(merged.get(key), key, trained=tool == "train")


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What the tools understand, as far as files are concerned, and the rest."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for option in ("--work-dir", "--out", "--out-item", "--show-dir"):  # written, and not read
        parser.add_argument(option)
    parser.add_argument("--resume", nargs="?", const="auto")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    try:
        return parser.parse_known_args(arguments)
    except (argparse.ArgumentError, ValueError) as error:
        raise ValueError(f"{' '.join(arguments)}: {error}") from error


def _merged(config: Any, options: Mapping[str, Any]) -> Any:
    if not options:
        return config
    merged = copy.deepcopy(config)
    try:
        merged.merge_from_dict(dict(options))
    except (KeyError, TypeError, AssertionError, IndexError) as error:
        raise ValueError(f"--cfg-options do not fit the config: {error}") from error
    return merged


def _walk(value: Any, where: str, trained: bool) -> Iterator[Named]:
    """All texts in a config's value, with the keys that lead there."""
    if isinstance(value, str):
        *_, last = where.split(".")
        needed = trained and last == "checkpoint" and ".init_cfg." in where
        yield Named(value, where, last in _NAMES or last.endswith("ckpt"), needed)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if not str(key).partition(".")[0].endswith(_DATA):
                yield from _walk(inner, f"{where}.{key}" if where else str(key), trained)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _walk(inner, f"{where}.{number}", trained)
