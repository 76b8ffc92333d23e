"""Table of a video's packets, made without decoding."""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from mixplug.video.packets import PacketQueue

_TICK = 1 << 10  # packets between two calls of tick


@dataclass
class PacketTable:
    """All packets of a stream whose frames are displayed.

    Attributes:
        ticks: ticks at which the frames are shown, in decoding order.
        shown: the same ticks, sorted.
        keys: indices of keyframes in ``ticks``.
        keyframes: ticks of keyframes, sorted.
        corrupt: ticks of packets that the file marks as corrupt, or whose times are wrong.
    """

    ticks: array[int] = field(default_factory=lambda: array("q"))
    keys: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls, queue: PacketQueue, tick: Callable[[int], None], reorders: bool = False
    ) -> PacketTable:
        """Read a whole file.

        Args:
            queue: all packets of the stream.
            tick: function that is called with the current tick.
            reorders: whether the codec has B-frames; then two packets with the same time show that
                their times are wrong.
        """
        table = cls()
        while not queue.ended:
            queue.more()
            while queue.units:
                unit = queue.units.popleft()
                if not unit.shown or not (unit.key or table.keys):
                    continue
                if unit.key:
                    table.keys.append(len(table.ticks))
                table.ticks.append(unit.pts)
                if unit.packet.is_corrupt:
                    table.corrupt.add(unit.pts)
                if len(table.ticks) % _TICK == 0:
                    tick(unit.pts)
        table.shown = sorted(table.ticks)
        if reorders:
            table.corrupt.update(a for a, b in itertools.pairwise(table.shown) if a == b)
        table.keyframes = sorted(table.ticks[place] for place in table.keys)
        table._place = {pts: place for place, pts in enumerate(table.ticks)}
        return table

    corrupt: set[int] = field(default_factory=set)
    shown: list[int] = field(default_factory=list)
    keyframes: list[int] = field(default_factory=list)
    _place: dict[int, int] = field(default_factory=dict)

    def damaged_ticks(self, pts: int) -> tuple[int, int | None]:
        """The ticks [start, end) that a damaged packet may affect, up to the next keyframe.

        A frame that is decoded after the damage may be shown before it.

        Args:
            pts: tick of the damaged packet's frame.

        Returns:
            Two ticks; an end of None means the end of the file.
        """
        place = self._place[pts]
        following = bisect.bisect_right(self.keys, place)
        if following == len(self.keys):
            return min(self.ticks[place:]), None
        key = self.keys[following]
        return min(self.ticks[place:key]), self.ticks[key]

    def keyframe_before(self, pts: int, count: int) -> int:
        """The last keyframe at least ``count`` frames before a frame, or the first keyframe."""
        frame = self.shown[max(0, bisect.bisect_left(self.shown, pts) - count)]
        return self.keyframes[max(0, bisect.bisect_right(self.keyframes, frame) - 1)]
