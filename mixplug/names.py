"""Display names: checkpoints told apart by their paths, and lists of names in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def distinct(paths: Sequence[Path], parts: int = 1) -> list[str]:
    """Names with as much of the path as makes them differ, and its last ``parts`` at least.

    Raises:
        ValueError: a checkpoint is given twice.
    """
    for depth in range(parts, max([parts, *(len(path.parts) for path in paths)]) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"A checkpoint is given twice: {', '.join(map(str, paths))}.")


def listed(names: Iterable[str], last: str = "or") -> str:
    """``a``, ``a or b``, ``a, b or c``; '' of nothing."""
    *first, end = [*names] or [""]
    return f"{', '.join(first)} {last} {end}" if first else end


def shortened(names: Iterable[str], most: int = 4) -> str:
    """``a, b, c, d and 3 more``; every name once."""
    found = list(dict.fromkeys(names))
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
