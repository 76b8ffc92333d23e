"""Axes of a figure that show only a picture."""

from __future__ import annotations

from typing import Any


def hide_axes(cell: Any) -> None:
    """Remove ticks and edges of matplotlib axes; labels and titles stay."""
    cell.set(xticks=[], yticks=[])
    for edge in cell.spines.values():
        edge.set_visible(False)
