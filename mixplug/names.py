"""Display names: short distinct names of paths, and lists of names in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def distinct(paths: Sequence[Path], parts: int = 1) -> list[str]:
    """Shortest path endings that differ from each other.

    Args:
        paths: paths of checkpoints.
        parts: smallest number of path components in a name.

    Returns:
        One name per path. All names have the same number of components, if the paths have as many.

    Raises:
        ValueError: a path occurs twice.
    """
    for depth in range(parts, max([parts, *(len(path.parts) for path in paths)]) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(
        f"Checkpoints need different paths, but one occurs twice: {', '.join(map(str, paths))}."
    )


def listed(names: Iterable[str], last: str = "or") -> str:
    """Join names in a sentence: ``a``, ``a or b``, ``a, b or c``; '' for no names."""
    *first, end = [*names] or [""]
    return f"{', '.join(first)} {last} {end}" if first else end


def shortened(names: Iterable[str], most: int = 4) -> str:
    """Join the first ``most`` distinct names: ``a, b, c, d and 3 more``."""
    distinct_names = list(dict.fromkeys(names))
    count = len(distinct_names) - most
    more = f" and {count} more" if count > 0 else ""
    return ", ".join(distinct_names[:most]) + more
