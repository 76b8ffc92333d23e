"""Check the checkpoints that a framework's tool will read, before the tool runs.

If mmengine cannot read a file safely, it reads the file again and executes the code in it.
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

_NAMES = ("checkpoint", "pretrained", "load_from", "resume_from")  # keys that name checkpoints
_DATA = ("dataloader", "evaluator", "dataset", "pipeline")  # pickles here are not checkpoints
_SAVED = (".pth", ".pt", ".ckpt")


@dataclass(frozen=True)
class Candidate:
    """A text that may be the path of a checkpoint, and its origin.

    Attributes:
        text: the path, or any other value.
        where: key, option or file that contains it.
        sure: whether it can only be a checkpoint.
        needed: whether the tool fails without it.
    """

    text: str
    where: str
    sure: bool = True
    needed: bool = False


def check_checkpoints(tool: str, config: Any, name: str, arguments: list[str]) -> None:
    """Refuse checkpoints with code in them, and missing checkpoints that the tool needs.

    Checked are ``load_from``, for --resume the file that work_dir/last_checkpoint names, all
    checkpoints in the config's model and hooks, and all checkpoints in the arguments.

    Args:
        tool: 'train' or 'test'; the first argument of a test is its checkpoint.
        config: mmengine config; it is not changed.
        name: path of the config, from which the tools derive the work directory.
        arguments: arguments of the tool.

    Raises:
        ValueError: a missing checkpoint, with the key that names it; or the errors of
            :func:`mixplug.weights.read.check_no_code`.
    """
    from mixplug.weights.read import check_no_code, could_be_torch

    seen = set()
    for candidate in _candidates(tool, config, name, arguments):
        file = Path(os.path.expanduser(candidate.text))  # as mmengine does
        if os.path.isfile(file):
            if candidate.sure or file.suffix in _SAVED or could_be_torch(file):
                if file not in seen:
                    check_no_code(file)
                seen.add(file)
        elif candidate.needed and "://" not in candidate.text:
            raise ValueError(
                f"There is no checkpoint {candidate.text} (given by {candidate.where})."
            )


@contextmanager
def safe_loading() -> Iterator[None]:
    """Make mmengine check every local checkpoint for code before it reads the file."""
    from mmengine.runner.checkpoint import CheckpointLoader, load_from_local

    from mixplug.weights.read import check_no_code

    def checked(filename: str, map_location: Any = None) -> Any:
        if os.path.isfile(os.path.expanduser(filename)):
            check_no_code(os.path.expanduser(filename))
        return load_from_local(filename, map_location)

    checked.__name__ = load_from_local.__name__  # mmengine logs this name
    CheckpointLoader.register_scheme("", checked, force=True)
    try:
        yield
    finally:
        CheckpointLoader.register_scheme("", load_from_local, force=True)


def _candidates(tool: str, config: Any, name: str, arguments: list[str]) -> Iterator[Candidate]:
    given, others = _parsed(arguments)
    merged = _merged(config, given.cfg_options)
    if tool == "test":
        yield Candidate(arguments[0], "the argument CHECKPOINT", needed=True)
    yield from (Candidate(text.rpartition("=")[2], "an argument", sure=False) for text in others)
    yield from _walk(given.cfg_options, "", trained=False)
    fresh = tool == "train" and given.resume is None
    if isinstance(merged.get("load_from"), str):
        yield Candidate(merged.load_from, "load_from", needed=fresh)
    if given.resume == "auto" or merged.get("resume"):
        places = {given.work_dir, merged.get("work_dir"), f"work_dirs/{Path(name).stem}"}
        for last in (Path(place) / "last_checkpoint" for place in places if place):
            if last.is_file():
                yield Candidate(last.read_text().strip(), str(last), needed=tool == "train")
    elif given.resume is not None:
        yield Candidate(given.resume, "--resume", needed=True)
    for key in ("model", "custom_hooks", "default_hooks"):
        yield from _walk(merged.get(key), key, trained=tool == "train")


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of the tools that concern files, and the other arguments."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for option in ("--work-dir", "--out", "--out-item", "--show-dir"):  # written, not read
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


def _walk(value: Any, where: str, trained: bool) -> Iterator[Candidate]:
    """All texts in a value of a config, with their keys."""
    if isinstance(value, str):
        *_, last = where.split(".")
        needed = trained and last == "checkpoint" and ".init_cfg." in where
        yield Candidate(value, where, last in _NAMES or last.endswith("ckpt"), needed)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if not str(key).partition(".")[0].endswith(_DATA):
                yield from _walk(inner, f"{where}.{key}" if where else str(key), trained)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _walk(inner, f"{where}.{number}", trained)
