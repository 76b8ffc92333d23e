"""Checkpoints of command-line arguments, their column names, and what they record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixplug.names import distinct

_LAST = "last_checkpoint"  # file in which mmengine writes the path of the last checkpoint
_PARTS = 2  # parts of a path in a name: folder of the run, and file
_LAST_TIMM, _BEST_TIMM = "last.pth.tar", "model_best.pth.tar"


def expand(given: Iterable[str | Path]) -> list[Path]:
    """Paths of checkpoints; the folder of a run gives its last and its best checkpoint.

    Raises:
        ValueError: a path does not exist, or a folder has no checkpoint.
    """
    return [path for one in given for path in _of(Path(one))]


def _of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"There is no checkpoint {path}.")
    found = [_last(path), *sorted(path.glob("best_*.pth")), path / _BEST_TIMM]
    there = list(dict.fromkeys(one for one in found if one is not None and one.is_file()))
    if not there:
        raise ValueError(
            f"{path} has neither a last_checkpoint nor a best_*.pth of mmengine, nor a "
            f"{_LAST_TIMM} or {_BEST_TIMM} of timm."
        )
    return there


def _last(folder: Path) -> Path | None:
    """Path of the last checkpoint of a run, also if the folder was moved after training."""
    note = folder / _LAST
    if note.is_file():
        return folder / Path(note.read_text().strip()).name
    return folder / _LAST_TIMM


def names_of(paths: Sequence[Path]) -> list[str]:
    """Folder and file of each checkpoint, and more of the path where names would be equal.

    Raises:
        ValueError: a checkpoint is given twice.
    """
    return distinct(paths, _PARTS)


def facts_of(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Origin of the weights: path, hash, and the epoch, seed and time that the file records."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    meta = found.get("meta")
    recorded = {**(meta if isinstance(meta, Mapping) else {}), "epoch": _epoch(found)}
    names = ("epoch", "iter", "seed", "time")
    known = {name: recorded[name] for name in names if _plain(recorded.get(name))}
    return {"checkpoint": str(path), "sha256": digest.hexdigest(), **known}


def _epoch(found: Mapping[str, Any]) -> Any:
    """Recorded epoch: mmengine saves the number of finished epochs, timm the index of the last."""
    meta = found.get("meta")
    return meta.get("epoch") if isinstance(meta, Mapping) else found.get("epoch")


def _plain(value: object) -> bool:
    return isinstance(value, (int, float, str))
