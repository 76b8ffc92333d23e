"""Packets of a video stream in decoding order, read ahead of the decoder.

Times are ticks of the stream: integers in units of ``time_base`` seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LATE = 64  # number of packets that may be out of order in a stream without decoding times
_FIRST_STEP = 0.5  # seconds by which a search for a keyframe moves back; doubles each time


@dataclass(frozen=True)
class Unit:
    """A packet that may contain a frame.

    Attributes:
        packet: packet object of PyAV.
        pts: tick at which its frame is shown.
        order: index among all packets that this queue has read.
        key: whether decoding can start here.
        shown: whether its frame is displayed at all.
    """

    packet: Any
    pts: int
    order: int
    key: bool
    shown: bool


class PacketQueue:
    """Packets that are demuxed but not yet decoded.

    Args:
        container: container object of PyAV.
        stream: video stream.

    Attributes:
        units: packets in decoding order.
        bound: frames of all packets to come are shown at this tick or later.
        ended: whether there are no more packets.
        passed: tick of the first packet that the last seek skipped because decoding needs a
            keyframe.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._order = 0
        self._second = round(1 / stream.time_base)
        self._start(container.demux(stream))

    def _start(self, packets: Iterator[Any]) -> None:
        self._packets = packets
        self.units: deque[Unit] = deque()
        self.bound = -(1 << 62)
        self.ended = False
        self.passed: int | None = None

    def seek(self, tick: int) -> None:
        """Restart at a keyframe at or before ``tick``, or at the first keyframe."""
        step = 0
        first = self._stream.start_time or 0
        while True:
            self._jump(tick - step)
            while not self.units and not self.ended:
                self.more()
                while self.units and not self.units[0].key:
                    pts = self.units.popleft().pts
                    self.passed = pts if self.passed is None else min(pts, self.passed)
            found = bool(self.units) and self.units[0].pts <= tick
            if found or tick - step < first - self._second:
                return
            # demuxers seek by decoding time or byte, so the keyframe may be shown after the tick
            step = 2 * step or round(_FIRST_STEP * self._second)

    def _jump(self, tick: int) -> None:
        try:
            self._container.seek(tick, stream=self._stream, backward=True)
        except Exception:  # some formats fail before the first packet
            self._container.seek(0, stream=self._stream, backward=True, any_frame=True)
        self._start(self._container.demux(self._stream))

    def more(self) -> None:
        """Read one packet."""
        try:
            packet = next(self._packets)
        except Exception:  # the end; packets after damage are not found
            self.ended = True
            return
        pts = packet.dts if packet.pts is None else packet.pts
        if not packet.size or pts is None:
            self.ended = self.ended or not packet.size  # an empty packet marks the end
            return
        unit = Unit(packet, pts, self._order, packet.is_keyframe, not packet.is_discard)
        self._order += 1
        self.units.append(unit)
        if packet.dts is not None:
            self.bound = max(self.bound, packet.dts)
        elif len(self.units) > _LATE:
            self.bound = max(self.bound, sorted(u.pts for u in self.units)[-_LATE])

    def read_up_to(self, tick: int) -> None:
        """Read until all packets are available whose frames are shown at ``tick`` or before."""
        while self.bound <= tick and not self.ended:
            self.more()

    def drop_before(self, unit: Unit | None) -> None:
        """Drop all packets before ``unit``."""
        while self.units and self.units[0] is not unit:
            self.units.popleft()

    def newest(self) -> int:
        """Tick up to which packets were read."""
        return max(self.bound, self.units[-1].pts if self.units else self.bound)
