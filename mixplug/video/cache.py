"""A cache of decoded frames."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded frame, as the decoder returned it.

    Attributes:
        start: tick at which the frame is decoded.
        until: no other frame is shown before this tick.
        frame: frame object of PyAV.
    """

    start: int
    until: int
    frame: Any

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(plane.buffer_size for plane in self.frame.planes)


class FrameCache:
    """The most recently used frames, up to a limit in bytes.

    Args:
        limit: largest size in bytes.

    Attributes:
        held: current size in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._frames: OrderedDict[int, DecodedFrame] = OrderedDict()  # least recently used first
        self._starts: list[int] = []  # sorted

    def get(self, tick: int) -> DecodedFrame | None:
        """The frame that is shown at ``tick``, or None if it is not in the cache."""
        place = bisect.bisect_right(self._starts, tick) - 1
        if place < 0:
            return None
        found = self._frames[self._starts[place]]
        if tick >= found.until:
            return None
        self._frames.move_to_end(found.start)
        return found

    def put(self, decoded: DecodedFrame) -> None:
        """Store a frame and drop the least recently used ones.

        A frame that is larger than the limit is not stored.
        """
        if decoded.size > self.limit:
            return
        if decoded.start in self._frames:
            self._drop(decoded.start)
        while self.held + decoded.size > self.limit:
            self._drop(next(iter(self._frames)))
        self._frames[decoded.start] = decoded
        bisect.insort(self._starts, decoded.start)
        self.held += decoded.size

    def _drop(self, start: int) -> None:
        self.held -= self._frames.pop(start).size
        del self._starts[bisect.bisect_left(self._starts, start)]
