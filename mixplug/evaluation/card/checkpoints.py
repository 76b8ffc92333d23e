"""Which checkpoints an argument means, and what columns are headed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixplug.names import distinct

_LAST = "last_checkpoint"  # mmengine's: a file that names another
_RUN = 2  # parts of a path: the run's folder, and the file in it
_LAST_TIMM, _BEST_TIMM = "last.pth.tar", "model_best.pth.tar"


def expand(given: Iterable[str | Path]) -> list[Path]:
    """Checkpoints, where a folder of a run means its last and its best one.

    Raises:
        ValueError: no such file, or a folder without checkpoints.
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
    """The last checkpoint of a run, wherever the run was when it wrote its path."""
    note = folder / _LAST
    if note.is_file():
        return folder / Path(note.read_text().strip()).name
    return folder / _LAST_TIMM


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names with the folder of the run, and as much more of the path as makes them differ.

    Raises:
        ValueError: a checkpoint is given twice.
    """
    return distinct(paths, _RUN)


def facts_of(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Where weights come from: the file, its hash, and what it says of its run."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    meta = found.get("meta")
    said = {**(meta if isinstance(meta, Mapping) else {}), "epoch": _epoch(found)}
    known = {key: said[key] for key in ("epoch", "iter", "seed", "time") if _plain(said.get(key))}
    return {"checkpoint": str(path), "sha256": digest.hexdigest(), **known}


def _epoch(found: Mapping[str, Any]) -> Any:
    """Mmengine counts the epochs that are done, timm from 0 the one that is."""
    meta = found.get("meta")
    return meta.get("epoch") if isinstance(meta, Mapping) else found.get("epoch")


def _plain(value: object) -> bool:
    return isinstance(value, (int, float, str))
