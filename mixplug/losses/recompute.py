"""Piece by piece, with one piece in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


def each(function: Callable[..., T], pieces: Sequence[tuple[Any, ...]]) -> list[T]:
    """``function(*piece)`` of every piece, run again in the backward pass if there are several."""
    if len(pieces) == 1:
        return [function(*pieces[0])]
    return [checkpoint(function, *piece, use_reentrant=False) for piece in pieces]
