"""MPEG program streams (.mpg, .vob), which state the times of some frames only.

FFmpeg guesses the other times from the packets that it read before. So they depend on where it
started to read, and some are wrong even from the start: two frames get the same time. Here the
order in which frames are shown comes from the types of their pictures, and times that are not
stated are interpolated between those that are.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixplug.optional import optional
from mixplug.video.packets import PacketQueue, Unit

CODECS = ("mpeg1video", "mpeg2video")  # codecs whose packets tell the order of display
_PICTURE = b"\0\0\1\0"  # start code of the header of a picture
_JOINED = 25  # frames by which ticks step back at least where files were joined
_B = 3  # type of a picture that is shown at once; other types wait for the next of them


@dataclass(frozen=True)
class ProgramTimes:
    """Times of all frames of a program stream, by the number of their packet in decoding order.

    Attributes:
        ticks: tick at which the frame is shown.
        bounds: this packet and all later ones have this tick or a later one.
        keys: numbers of keyframes.
        offsets: byte from which on to read so that the packet is found; not known for each.
        digests: (size, checksum) of the packets.
        origin: tick of the first frame that is shown.
        end: tick at which the last frame ends.
    """

    ticks: Sequence[int]
    bounds: Sequence[int]
    keys: Sequence[int]
    offsets: Sequence[int]
    digests: Sequence[tuple[int, int]]
    origin: int
    end: int

    def key_before(self, tick: int) -> int:
        """Number of the last keyframe that is shown at ``tick`` or before, or of the first one."""
        earlier = [key for key in self.keys if self.ticks[key] <= tick]
        return max(earlier, key=self.ticks.__getitem__, default=self.keys[0])


def times_of(path: Path) -> ProgramTimes:
    """Read all packets of a file without decoding them; results of the last files are kept."""
    found = path.stat()
    return _times(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _times(path: Path, size: int, modified: int) -> ProgramTimes:
    stated: list[tuple[int | None, int | None]] = []  # times at which to show and to decode
    waits: list[bool] = []
    keys, offsets, digests = [], [], []
    before, last = 0, 0  # the start code of a packet may be in the block before its own
    with optional("av", "video", "Reading videos").open(str(path)) as container:
        without_guesses(container)
        stream = container.streams.video[0]
        step = 1 / (rate_of(stream) or 25) / stream.time_base
        for packet in _packets(container, stream):
            data = bytes(packet)
            if packet.is_keyframe:
                keys.append(len(stated))
            if packet.pos is not None:
                before, last = last, packet.pos
            stated.append((packet.pts, packet.dts))
            waits.append(_waits(data))
            offsets.append(before)
            digests.append((len(data), zlib.crc32(data)))
    if not keys:
        raise ValueError(f"{path} has no frame that can be decoded.")
    order = display_order(waits)
    stamps = _own(stated, waits)
    shown = interpolated([stamps[number] for number in order], float(step))
    ticks = [0] * len(order)
    for number, tick in zip(order, shown, strict=True):
        ticks[number] = tick
    bounds = ticks[:]
    for number in range(len(bounds) - 2, -1, -1):
        bounds[number] = min(bounds[number], bounds[number + 1])
    origin, end = ticks[keys[0]], shown[-1] + round(step)
    return ProgramTimes(ticks, bounds, keys, offsets, digests, origin, end)


def without_guesses(container: Any) -> None:
    """Rewind a container; from now on, packets whose times are not stated have none."""
    container.flags |= optional("av.container", "video", "Reading videos").Flags.no_fillin.value
    container.seek(0, unsupported_byte_offset=True)


def rate_of(stream: Any) -> Fraction | None:
    """Frames per second as the header of the video states it; a mean would be of guesses."""
    rate: Fraction | None = stream.codec_context.framerate or stream.guessed_rate
    return rate or None


def _own(
    stated: Sequence[tuple[int | None, int | None]], waits: Sequence[bool]
) -> list[int | None]:
    """The stated ticks of packets, without those that FFmpeg took from the next packet.

    It does so if the start of the next packet is split over two blocks. With pictures of type B in
    the stream, only they are shown and decoded at the same time.
    """
    if all(waits):
        return [shown for shown, _ in stated]
    return [
        shown if (shown != decoded) == waiting else None
        for (shown, decoded), waiting in zip(stated, waits, strict=True)
    ]


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    with contextlib.suppress(Exception):  # packets after damage are not found
        yield from (packet for packet in container.demux(stream) if packet.size)


def _waits(data: bytes) -> bool:
    """Whether a picture is shown only when the next picture of this kind is decoded."""
    place = data.find(_PICTURE)
    return place < 0 or place + 5 >= len(data) or data[place + 5] >> 3 & 7 != _B


def display_order(waits: Sequence[bool]) -> list[int]:
    """Numbers of the packets in the order in which their frames are shown.

    Args:
        waits: per packet in decoding order, whether its frame waits until the next frame that waits
            is decoded, as I and P do. B is shown at once.
    """
    order: list[int] = []
    waiting: int | None = None
    for number, one in enumerate(waits):
        if not one:
            order.append(number)
            continue
        if waiting is not None:
            order.append(waiting)
        waiting = number
    return order if waiting is None else [*order, waiting]


def interpolated(stated: Sequence[int | None], step: float) -> list[int]:
    """Increasing ticks of frames in the order in which they are shown.

    Args:
        stated: tick that the file states, or None.
        step: mean number of ticks of a frame. It continues before the first and after the last
            stated tick, and where ticks start again, as they do where files were joined.
            Smaller steps back are errors, and ignored.
    """
    known: list[tuple[int, float]] = []
    shift = 0.0
    for place, stamp in enumerate(stated):
        if stamp is None:
            continue
        tick = stamp + shift
        if known and known[-1][1] - _JOINED * step < tick <= known[-1][1]:
            continue
        if known and tick <= known[-1][1]:
            joined = known[-1][1] + (place - known[-1][0]) * step
            shift, tick = shift + joined - tick, joined
        known.append((place, tick))
    known = known or [(0, 0.0)]
    places = [place for place, _ in known]
    found = []
    for place in range(len(stated)):
        after = bisect.bisect_right(places, place)
        start, tick = known[max(after - 1, 0)]
        rate = step
        if 0 < after < len(known):
            rate = (known[after][1] - tick) / (places[after] - start)
        found.append(round(tick + (place - start) * rate))
    return found


class ProgramQueue(PacketQueue):
    """A :class:`PacketQueue` of a program stream, after :func:`without_guesses`."""

    def __init__(self, container: Any, stream: Any, times: ProgramTimes) -> None:
        self._times, self._number = times, 0
        super().__init__(container, stream)

    def seek(self, tick: int) -> None:
        """See :class:`PacketQueue`."""
        key = self._times.key_before(tick)
        for offset in (self._times.offsets[key], 0):
            self._container.seek(offset, unsupported_byte_offset=True)
            self._start(_packets(self._container, self._stream))
            self._number = 0 if not offset else key
            for packet in self._packets:
                if offset and self._digest(packet) == self._times.digests[key]:
                    break
                if not offset and self._number == key:
                    break
                self._number += not offset
            else:
                continue
            self._add(packet)
            return
        self.ended = True

    def _digest(self, packet: Any) -> tuple[int, int]:
        return packet.size, zlib.crc32(bytes(packet))

    def more(self) -> None:
        """See :class:`PacketQueue`."""
        packet = next(self._packets, None)
        if packet is None:
            self.ended = True
        elif packet.size:
            self._add(packet)

    def _add(self, packet: Any) -> None:
        times, number = self._times, self._number
        if number >= len(times.ticks):
            self.ended = True
            return
        packet.pts = times.ticks[number]
        following = times.bounds[number + 1] if number + 1 < len(times.bounds) else times.end
        self.bound = max(self.bound, following)
        self.units.append(Unit(packet, packet.pts, self._order, packet.is_keyframe, True))
        self._order += 1
        self._number += 1
