"""Names in a sentence."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[str], last: str = "or") -> str:
    """``a``, ``a or b``, ``a, b or c``; '' of nothing."""
    *first, end = [*names] or [""]
    return f"{', '.join(first)} {last} {end}" if first else end


def shortened(names: Iterable[str], most: int = 4) -> str:
    """``a, b, c, d and 3 more``; every name once."""
    found = list(dict.fromkeys(names))
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
