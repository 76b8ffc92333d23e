"""Decode as little as possible to have the frame that is shown at a tick."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixplug.optional import optional
from mixplug.video.cache import FrameCache, Shown
from mixplug.video.damage import Damage
from mixplug.video.packets import PacketQueue, Unit
from mixplug.video.run import DecoderRun
from mixplug.video.stream import clock_of, open_stream

_REACH = 30.0  # seconds; without a table of keyframes, reading on this far is cheaper than a seek


class LostError(Exception):
    """There is no frame to show.

    Args:
        damage: tick of the damage that it depends on; None where there are no packets at all.
    """

    def __init__(self, damage: int | None = None) -> None:
        super().__init__(damage)
        self.damage = damage


class FrameDecoder:
    """Frames by the tick at which they are shown.

    To show frame t, the decoder needs what was coded since the last keyframe before t. It goes on
    from where it stands unless there is a keyframe on the way. Frames on the way that no other
    frame needs are left out. A frame is handed out when all that was decoded before it has come out
    too, since some damage shows only then.

    Args:
        path: of the file.
        keyframes: seconds, sorted, may be empty.
        cache_bytes: of decoded frames to be kept.
        threads: of the decoder.

    Attributes:
        damage: what could not be decoded.
        container: PyAV's.
        stream: of it.
        clock: of the stream.
    """

    def __init__(
        self, path: Path, keyframes: Sequence[float], cache_bytes: int, threads: int
    ) -> None:
        self._path, self._threads = path, threads
        self._cache = FrameCache(cache_bytes)
        self._given: Shown | None = None
        self.damage = Damage()
        self._open()
        self._keyframes = [self.clock.tick(time) for time in keyframes]

    def _open(self) -> None:
        self.container, self.stream = open_stream(self._path)
        self.clock = clock_of(self.stream)
        self._mean = 1 / float(self.stream.average_rate or 25) / float(self.stream.time_base)
        self._lossy = self.container.format.name == "mpegts"
        self._reach = round(_REACH / self.stream.time_base)
        self._packets = PacketQueue(self.container, self.stream)
        self._run = DecoderRun(self.stream.codec_context, self._threads, self.damage)
        self._started = False

    def first(self) -> Any:
        """The first frame that can be decoded, of all; None where none can."""
        errors = optional("av", "video", "Reading videos").error
        for packet in self.container.demux(self.stream):
            try:
                frames = packet.decode()
            except errors.FFmpegError:
                self._run.clean, frames = False, []
            if frames:
                return frames[0]
        return None

    def at(self, tick: int) -> Shown:
        """The frame that is shown at ``tick``.

        Raises:
            LostError: it is damaged, or depends on damage.
        """
        if self._given is not None and self._given.start <= tick < self._given.until:
            return self._given
        found = self._cache.get(tick)
        if found is not None:
            return found
        if not self._ahead(tick):
            self._seek(tick)
        start = self._start_of(tick)
        if start in self._run.skipped:  # it went by
            self._seek(tick)
            start = self._start_of(tick)
        self._given = self._decode_to(start)
        self._cache.put(self._given)
        return self._given

    def _ahead(self, tick: int) -> bool:
        """Whether going on is right: ``tick`` is not behind, nor beyond a far keyframe."""
        if not (self._started and self._run.clean) or tick < self._place():
            return False
        if not self._keyframes:
            return tick <= self._packets.newest() + self._reach
        key = bisect.bisect_right(self._keyframes, tick) - 1
        return key < 0 or self._keyframes[key] <= self._packets.newest()

    def _place(self) -> int:
        """The first tick whose frame can be had by going on."""
        if self._run.out:
            return self._run.out[0][0].pts
        if self._run.entry is not None:
            return self._run.entry
        return self._packets.units[0].pts if self._packets.units else self._packets.bound

    def _seek(self, tick: int) -> None:
        self._run.settle()
        if not self._run.clean:
            self.container.close()
            self._open()
        key = bisect.bisect_right(self._keyframes, tick) - 1
        self._packets.seek(self._keyframes[key] if key >= 0 else tick)
        self._run.restart()
        self._started = True

    def _start_of(self, tick: int) -> int:
        """When the frame begins that is shown at ``tick``; drops what is before its keyframe."""
        reach = tick + round(2 * self._mean) if self._lossy else tick  # to see a gap
        self._packets.reach(reach)
        if self._key_before(tick) not in (None, self._packets.units and self._packets.units[0]):
            self._run.settle()
            if not self._run.clean:
                self._seek(tick)
                self._packets.reach(reach)
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
            return min(u.pts for u in shown)  # a first frame that comes late is shown before, too
        after = min((u.pts for u in shown if u.pts > found.pts), default=None)
        if tick >= self._end_of(found, after):
            raise LostError
        return found.pts

    def _key_before(self, tick: int) -> Unit | None:
        keys = (unit for unit in self._packets.units if unit.key and unit.pts <= tick)
        return max(keys, key=_pts, default=None)

    def _end_of(self, unit: Unit, after: int | None) -> float:
        """Before which tick a frame is shown, if the next one that there is begins at ``after``.

        Where packets may lack without a trace, a frame is not shown in the place of others.
        """
        lasts = max(unit.packet.duration or 0, self._mean)
        if after is None and self._packets.ended:
            return unit.pts + 2 * lasts  # files round
        if self._lossy and (after is None or after >= unit.pts + 1.5 * lasts):
            return unit.pts + round(lasts)
        return math.inf if after is None else after

    def _decode_to(self, start: int) -> Shown:
        run, units = self._run, self._packets.units
        known = [*run.known(), *units]
        wanted = next(u for u in known if u.pts == start)
        # all that the wanted frame may depend on has come out when this one has
        horizon = max(u.pts for u in known if u.order <= wanted.order)
        times = sorted(u.pts for u in known if u.shown)
        keep = sum(u.order <= wanted.order for u in units) * run.frame_bytes <= self._cache.limit
        passed: list[tuple[Unit, Any]] = []
        while not (run.drained or (run.out and run.out[-1][0].pts >= horizon)):
            if not units and not self._packets.ended:
                self._packets.more()
                continue
            skip = bool(units) and units[0].order < wanted.order and not keep
            run.feed(units.popleft() if units else None, skip)
            if keep:
                passed += [came for came in run.out if came[0].pts < start and came not in passed]
            run.forget(start)
        for unit, frame in passed:
            if self.damage.behind(unit) is None and not run.pending(unit):
                self._cache.put(Shown(unit.pts, self._until(unit, times), frame))
        found = next((frame for unit, frame in run.out if unit is wanted), None)
        damage = self.damage.behind(wanted)
        if found is None or damage is not None:
            raise LostError(start if damage is None else damage)
        run.forget(start)
        return Shown(start, self._until(wanted, times), found)

    def _until(self, unit: Unit, times: list[int]) -> int:
        """Before which tick a frame is shown for sure."""
        place = bisect.bisect_right(times, unit.pts)
        if place == len(times):
            return unit.pts + 1
        end = int(self._end_of(unit, times[place]))
        return end if self._packets.ended else min(end, self._packets.bound)


def _pts(unit: Unit) -> int:
    return unit.pts
