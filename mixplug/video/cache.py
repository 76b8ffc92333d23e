"""Decoded frames that are kept for a while."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shown:
    """A decoded frame, as the decoder gave it.

    Attributes:
        start: tick at which it is shown.
        until: tick before which no other is shown.
        frame: PyAV's.
    """

    start: int
    until: int
    frame: Any

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(plane.buffer_size for plane in self.frame.planes)


class FrameCache:
    """The most recently used frames, up to a number of bytes.

    Args:
        limit: bytes.

    Attributes:
        held: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._frames: OrderedDict[int, Shown] = OrderedDict()  # the least recently used is first
        self._starts: list[int] = []  # sorted

    def get(self, tick: int) -> Shown | None:
        """The frame that is shown at ``tick``, if it is here."""
        place = bisect.bisect_right(self._starts, tick) - 1
        if place < 0:
            return None
        found = self._frames[self._starts[place]]
        if tick >= found.until:
            return None
        self._frames.move_to_end(found.start)
        return found

    def put(self, shown: Shown) -> None:
        """Keep a frame, and let others go for it; one that is too large is not kept."""
        if shown.size > self.limit:
            return
        if shown.start in self._frames:
            self._drop(shown.start)
        while self.held + shown.size > self.limit:
            self._drop(next(iter(self._frames)))
        self._frames[shown.start] = shown
        bisect.insort(self._starts, shown.start)
        self.held += shown.size

    def _drop(self, start: int) -> None:
        self.held -= self._frames.pop(start).size
        del self._starts[bisect.bisect_left(self._starts, start)]
