"""Packets of a video stream in the order of decoding, read ahead of the decoder.

Times are ticks of the stream: integers, of which ``time_base`` seconds pass from one to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mixplug.optional import optional

_LATE = 64  # packets that a stream without decoding times may have out of order
_FIRST_STEP = 0.5  # seconds; how much earlier a search for a keyframe starts, then twice as much


@dataclass(frozen=True)
class Unit:
    """A packet that may give a frame.

    Attributes:
        packet: PyAV's.
        pts: when its frame is shown.
        order: its place among all packets that came out of this queue.
        key: whether decoding can start with it.
        shown: whether its frame is shown at all.
    """

    packet: Any
    pts: int
    order: int
    key: bool
    shown: bool


class PacketQueue:
    """What is demuxed and not yet decoded.

    Args:
        container: PyAV's.
        stream: of video.

    Attributes:
        units: in the order of decoding.
        bound: frames of all packets that are still to come are shown at it or later.
        ended: whether no packet is to come.
        passed: tick of the first packet that the last seek has passed over, as decoding could not
            start before a keyframe.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._errors = optional("av", "video", "Reading videos").error
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
        """Start again at a keyframe at or before ``tick``, or at the first one."""
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
            # demuxers go by decoding times, or by bytes; the keyframe found may be shown too late
            step = 2 * step or round(_FIRST_STEP * self._second)

    def _jump(self, tick: int) -> None:
        try:
            self._container.seek(tick, stream=self._stream, backward=True)
        except (self._errors.FFmpegError, OSError):  # before the first packet, for some formats
            self._container.seek(0, stream=self._stream, backward=True, any_frame=True)
        self._start(self._container.demux(self._stream))

    def more(self) -> None:
        """Read one packet."""
        try:
            packet = next(self._packets)
        except (StopIteration, self._errors.FFmpegError):  # what is behind damage is not found
            self.ended = True
            return
        pts = packet.dts if packet.pts is None else packet.pts
        if not packet.size or pts is None:
            self.ended = self.ended or not packet.size  # an empty packet says that it was the last
            return
        unit = Unit(packet, pts, self._order, packet.is_keyframe, not packet.is_discard)
        self._order += 1
        self.units.append(unit)
        if packet.dts is not None:
            self.bound = max(self.bound, packet.dts)
        elif len(self.units) > _LATE:
            self.bound = max(self.bound, sorted(u.pts for u in self.units)[-_LATE])

    def reach(self, tick: int) -> None:
        """Read until all packets are there whose frames are shown at ``tick`` or before."""
        while self.bound <= tick and not self.ended:
            self.more()

    def drop_before(self, unit: Unit | None) -> None:
        """Make a packet the next one."""
        while self.units and self.units[0] is not unit:
            self.units.popleft()

    def newest(self) -> int:
        """Up to when packets were read."""
        return max(self.bound, self.units[-1].pts if self.units else self.bound)
