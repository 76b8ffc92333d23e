"""Decode the frame that is shown at a tick, and as few other frames as possible."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mixplug.video.cache import DecodedFrame, FrameCache
from mixplug.video.damage import Damage
from mixplug.video.packets import Unit
from mixplug.video.run import DecoderRun
from mixplug.video.stream import open_stream

_DELAY = 32  # frames by which a frame may come out too late
_FIRST = 12  # frames of which the order is checked when a file is opened
_REACH = 30.0  # seconds; without a table of keyframes, decoding this far is cheaper than a seek


class LostError(Exception):
    """There is no frame that can be shown.

    Args:
        damage: tick of the damage on which the frame depends; None if there are no packets.
    """

    def __init__(self, damage: int | None = None) -> None:
        super().__init__(damage)
        self.damage = damage


class OrderError(Exception):
    """The file states times in another order than that in which frames are shown."""


class FrameDecoder:
    """Frames by the tick at which they are shown.

    To show frame t, the decoder needs the packets since the last keyframe before t. It continues
    from its current position unless there is a keyframe in between. Frames in between that no other
    frame references are not decoded. A frame is returned only after all frames that were decoded
    before it have come out of the decoder, because some damage is reported late.

    Args:
        path: path of the file.
        keyframes: times of the keyframes in seconds, sorted; may be empty.
        cache_bytes: size of the cache of decoded frames.
        threads: number of threads of the decoder.

    Attributes:
        damage: packets that could not be decoded.
        opened: the open file.
        container: container object of PyAV.
        stream: video stream of the container.
        clock: clock of the stream.
    """

    def __init__(
        self, path: Path, keyframes: Sequence[float], cache_bytes: int, threads: int
    ) -> None:
        self._path, self._threads = path, threads
        self._cache = FrameCache(cache_bytes)
        self._last: DecodedFrame | None = None
        self.damage = Damage()
        self._open()
        self._keyframes = [self.clock.tick(time) for time in keyframes]

    def _open(self) -> None:
        self.opened = opened = open_stream(self._path)
        self.container, self.stream, self.clock = opened.container, opened.video, opened.clock
        self._mean = 1 / float(opened.rate or 25) / float(self.stream.time_base)
        self._lossy = self.container.format.name == "mpegts"
        self._reach = round(_REACH / self.stream.time_base)
        self._packets = opened.packets()
        self._run = DecoderRun(self.stream.codec_context, self._threads, self.damage)
        self._started = False

    def first(self) -> Any:
        """The first frame of the file that can be decoded, or None.

        Raises:
            OrderError: the times of the first frames are not in order.
        """
        found: list[Any] = []
        # program streams have other times than their packets
        count = _FIRST if self._reorders() and self.opened.times is None else 1
        for packet in self._demuxed():
            try:
                found += packet.decode()
            except Exception:  # PyAV raises errors of Python, too
                self._run.clean, count = False, 1
            if len(found) >= count:
                break
        ticks = [frame.pts for frame in found if frame.pts is not None and not frame.is_corrupt]
        if count > 1 and any(a >= b for a, b in itertools.pairwise(ticks)):
            raise OrderError
        return found[0] if found else None

    def _reorders(self) -> bool:
        return bool(self.stream.codec_context.has_b_frames)

    def _demuxed(self) -> Iterator[Any]:
        with contextlib.suppress(Exception):  # packets after damage are not found
            yield from self.container.demux(self.stream)

    def frame_at(self, tick: int) -> DecodedFrame:
        """The frame that is shown at ``tick``.

        Raises:
            LostError: the frame is damaged or depends on damage.
            OrderError: times from the last keyframe on are not in order.
        """
        if self._last is not None and self._last.start <= tick < self._last.until:
            return self._last
        found = self._cache.get(tick)
        if found is not None:
            return found
        if not self._can_continue(tick):
            self._seek(tick)
        start = self._start_of(tick)
        if start in self._run.skipped:  # the decoder has passed this frame without decoding it
            self._seek(tick)
            start = self._start_of(tick)
        self._last = self._decode_to(start)
        self._cache.put(self._last)
        return self._last

    def _can_continue(self, tick: int) -> bool:
        """Whether to continue without a seek: ``tick`` is ahead and no later keyframe is nearer."""
        if not (self._started and self._run.clean) or tick < self._next_tick():
            return False
        if not self._keyframes:
            return tick <= self._packets.newest() + self._reach
        key = bisect.bisect_right(self._keyframes, tick) - 1
        return key < 0 or self._keyframes[key] <= self._packets.newest()

    def _next_tick(self) -> int:
        """The first tick whose frame can be decoded without a seek."""
        if self._run.out:
            return self._run.out[0][0].pts
        if self._run.entry is not None:
            return self._run.entry
        return self._packets.units[0].pts if self._packets.units else self._packets.bound

    def _seek(self, tick: int) -> None:
        self._run.drain()
        if not self._run.clean:
            self.container.close()
            self._open()
        key = bisect.bisect_right(self._keyframes, tick) - 1
        self._packets.seek(self._keyframes[key] if key >= 0 else tick)
        self._run.restart()
        self._started = True

    def _start_of(self, tick: int) -> int:
        """Start tick of the frame that is shown at ``tick``; drops packets before its keyframe."""
        until = tick + round(2 * self._mean) if self._lossy else tick  # far enough to detect a gap
        self._packets.read_up_to(until)
        if self._key_before(tick) not in (None, self._packets.units and self._packets.units[0]):
            self._run.drain()
            if not self._run.clean:
                self._seek(tick)
                self._packets.read_up_to(until)
            self._packets.drop_before(self._key_before(tick))
            self._run.restart()
        packets, known = self._packets, [*self._run.known(), *self._packets.units]
        entry = known[0].pts if self._run.entry is None and known else self._run.entry
        shown = [u for u in known if u.shown and entry is not None and u.pts >= entry]
        found = max((u for u in shown if u.pts <= tick), key=_pts, default=None)
        if found is None:
            if packets.passed is not None and packets.passed <= tick:
                self.damage.places.add(packets.passed)
                raise LostError(packets.passed)
            if not shown:
                raise LostError
            return min(u.pts for u in shown)  # before the first frame starts, it is shown too
        after = min((u.pts for u in shown if u.pts > found.pts), default=None)
        if tick >= self._end_of(found, after):
            raise LostError
        return found.pts

    def _key_before(self, tick: int) -> Unit | None:
        keys = (unit for unit in self._packets.units if unit.key and unit.pts <= tick)
        return max(keys, key=_pts, default=None)

    def _end_of(self, unit: Unit, after: int | None) -> float:
        """Tick at which a frame ends if the next existing frame starts at ``after``.

        In formats that can lose packets without a trace, a frame does not fill the gap of lost
        frames.
        """
        lasts = max(unit.packet.duration or 0, self._mean)
        if after is None and self._packets.ended:
            return unit.pts + 2 * lasts  # twice the length, because files round times
        if self._lossy and (after is None or after >= unit.pts + 1.5 * lasts):
            return unit.pts + round(lasts)
        return math.inf if after is None else after

    def _decode_to(self, start: int) -> DecodedFrame:
        run, units = self._run, self._packets.units
        known = [*run.known(), *units]
        wanted = next(u for u in known if u.pts == start)
        # once this frame is out, all frames that the wanted one may depend on are out as well
        horizon = max(u.pts for u in known if u.order <= wanted.order)
        keep = sum(u.order <= wanted.order for u in units) * run.frame_bytes <= self._cache.limit
        passed: list[tuple[Unit, Any]] = []
        while not (run.drained or (run.out and run.out[-1][0].pts >= horizon)):
            if not units and not self._packets.ended:
                self._packets.more()
                continue
            skip = bool(units) and units[0].order < wanted.order and not keep
            run.feed(units.popleft() if units else None, skip)
            if keep:
                passed += [pair for pair in run.out if pair[0].pts < start and pair not in passed]
            run.forget(start)
        # with the packets that the loop has read
        times = sorted({u.pts for u in (*known, *run.known(), *units) if u.shown})
        for unit, frame in passed:
            if self.damage.cause(unit) is None and not run.pending(unit):
                self._cache.put(DecodedFrame(unit.pts, self._until(unit, times), frame))
        found = next((frame for unit, frame in run.out if unit is wanted), None)
        damage = self.damage.cause(wanted)
        if found is None or damage is not None:
            self._check_order()
            raise LostError(start if damage is None else damage)
        run.forget(start)
        return DecodedFrame(start, self._until(wanted, times), found)

    def _check_order(self) -> None:
        """Decode some more frames: a frame that seems to be lost may only come too late."""
        run, units = self._run, self._packets.units
        for _ in range(_DELAY):
            if run.drained or run.faulty or run.disordered:
                break
            while not units and not self._packets.ended:
                self._packets.more()
            run.feed(units.popleft() if units else None)
        if run.disordered or (run.twice and not run.faulty):
            raise OrderError

    def _until(self, unit: Unit, times: list[int]) -> int:
        """Tick up to which a frame is certainly shown."""
        place = bisect.bisect_right(times, unit.pts)
        if place == len(times):
            return unit.pts + 1
        end = int(self._end_of(unit, times[place]))
        return end if self._packets.ended else min(end, self._packets.bound)


def _pts(unit: Unit) -> int:
    return unit.pts
