"""State of a decoder that runs from a keyframe on: frames in it, and frames that came out."""

from __future__ import annotations

from collections import deque
from typing import Any

from mixplug.optional import optional
from mixplug.video.damage import Damage
from mixplug.video.expendable import Expendable
from mixplug.video.packets import Unit

_DRAIN = 64  # largest number of errors that the decoder's threads may report at the end


class DecoderRun:
    """A codec, and the state of the packets that were sent to it.

    Args:
        codec: codec context of PyAV.
        threads: number of threads of the codec.
        damage: collects the packets that could not be decoded.

    Attributes:
        codec: codec context of PyAV.
        fed: packets whose frames have not come out yet, by tick.
        skipped: packets that were not decoded because no other packet needs them, by tick.
        lost: packets whose frames did not come out although later frames did, by tick.
        out: frames that came out, in the order in which they are shown; :meth:`forget` removes
            them.
        entry: tick of the keyframe at which the run started; None before.
        drained: whether the codec was drained after the last packet.
        clean: whether nothing was damaged or disordered. A decoder that met damage keeps some of it
            over a flush or a keyframe, so a new decoder is needed.
        faulty: whether the decoder has reported an error; then the order of frames says nothing.
        disordered: whether a frame came out after one that is shown later, without any error.
        twice: whether two packets have the same time.
        frame_bytes: size of a frame in bytes.
    """

    def __init__(self, codec: Any, threads: int, damage: Damage) -> None:
        codec.thread_count = threads
        codec.thread_type = "AUTO" if threads > 1 else "NONE"
        self.codec, self._threads, self._damage = codec, threads, damage
        self._errors = optional("av", "video", "Reading videos").error
        self._expendable = Expendable(codec)
        self.clean = True
        self.faulty = self.disordered = self.twice = False
        self.frame_bytes = codec.width * codec.height * 3 // 2
        self.restart()

    def restart(self) -> None:
        """Flush the codec, and start with the next keyframe."""
        self.codec.flush_buffers()
        self.fed: dict[int, Unit] = {}
        self.skipped: dict[int, Unit] = {}
        self.lost: dict[int, Unit] = {}
        self.out: deque[tuple[Unit, Any]] = deque()
        self.entry: int | None = None
        self.drained = False
        self._newest: int | None = None  # tick of the newest frame
        self._damage.restart()

    def known(self) -> list[Unit]:
        """All packets that were fed and not forgotten, in no particular order."""
        found = [unit for unit, _ in self.out]
        for units in (self.fed, self.skipped, self.lost):
            found += units.values()
        return found

    def pending(self, unit: Unit) -> bool:
        """Whether a frame that was decoded before this one has not come out yet."""
        return any(fed.order < unit.order for fed in self.fed.values())

    def drain(self) -> None:
        """Get all frames out of the codec, to see whether one of them is damaged."""
        if self.fed and not self.drained:
            self.feed(None)

    def feed(self, unit: Unit | None, skip: bool = False) -> None:
        """Decode a packet; None drains the codec.

        Args:
            unit: packet.
            skip: whether to skip the packet if no other packet needs it.
        """
        if unit is not None and self._skips(unit, skip):
            return
        self.drained = unit is None
        for _ in range(_DRAIN if unit is None else 1):
            try:
                frames = self.codec.decode(None if unit is None else unit.packet)
            except self._errors.EOFError:
                return
            except Exception:  # PyAV raises errors of Python, too
                self._failed(unit)
                continue
            for frame in frames:
                self._accept(frame)
            return

    def _skips(self, unit: Unit, skip: bool) -> bool:
        """Whether a packet is not decoded; updates the state for both cases."""
        if self.entry is None:
            self.entry = unit.pts
        if unit.key:
            self._damage.add_keyframe(unit)
        if unit.packet.is_corrupt:  # the packets after it may be missing too
            self.faulty = True
            self._mark_damaged(unit)
        if unit.pts < self.entry:  # depends on frames before the keyframe
            return True
        if skip and self._expendable(unit.packet):
            self.skipped[unit.pts] = unit
            return True
        self.twice = self.twice or unit.pts in self.fed
        self.fed[unit.pts] = unit
        return False

    def _failed(self, unit: Unit | None) -> None:
        """Mark a failed packet; with threads errors come late, so mark the oldest packet."""
        self.faulty = True
        if unit is None or self._threads > 1:
            unit = min(self.fed.values(), key=lambda fed: fed.order, default=unit)
        if unit is not None:
            self._mark_damaged(unit)

    def _mark_damaged(self, unit: Unit) -> None:
        self._damage.add(unit)
        self.clean = False

    def _accept(self, frame: Any) -> None:
        """Store a frame; frames come out in display order, so passed-over packets are lost."""
        tick = frame.dts if frame.pts is None else frame.pts
        self.faulty = self.faulty or frame.is_corrupt
        if tick is not None:
            if not self.faulty and self._newest is not None and tick <= self._newest:
                self.disordered, self.clean = True, False
            self._newest = tick if self._newest is None else max(tick, self._newest)
        unit = self.fed.pop(tick, None)
        if unit is None:
            return
        for lost in [lost for lost in self.fed.values() if lost.pts < unit.pts]:
            self.lost[lost.pts] = self.fed.pop(lost.pts)
            if lost.shown:
                self._mark_damaged(lost)
        self.skipped = {pts: other for pts, other in self.skipped.items() if pts > unit.pts}
        if frame.is_corrupt:
            self._mark_damaged(unit)
        self.out.append((unit, frame))
        self.frame_bytes = sum(plane.buffer_size for plane in frame.planes)

    def forget(self, start: int) -> None:
        """Drop frames that are shown before a tick, except the newest frame."""
        while len(self.out) > 1 and self.out[0][0].pts < start:
            self.out.popleft()
        self.lost = {pts: unit for pts, unit in self.lost.items() if pts > start}
