"""Cells of a figure that hold a picture and nothing else."""

from __future__ import annotations

from typing import Any


def bare(cell: Any) -> None:
    """Take ticks and edges from an axes of matplotlib; what is written beside it stays."""
    cell.set(xticks=[], yticks=[])
    for edge in cell.spines.values():
        edge.set_visible(False)
