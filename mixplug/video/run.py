"""A decoder on its way from a keyframe on: what is in it, and what came out."""

from __future__ import annotations

from collections import deque
from typing import Any

from mixplug.optional import optional
from mixplug.video.damage import Damage
from mixplug.video.expendable import Expendable
from mixplug.video.packets import Unit

_DRAIN = 64  # errors at most that threads of a decoder may still have to report at the end


class DecoderRun:
    """What a codec does with packets.

    Args:
        codec: PyAV's context.
        threads: of it.
        damage: is told what could not be decoded.

    Attributes:
        codec: PyAV's context.
        fed: packets whose frames did not come out yet, by tick.
        skipped: those that were left out, as no other needs them, by tick.
        lost: those whose frames did not come out, though later ones did, by tick.
        out: frames that came out, in the order in which they are shown; who takes them removes
            them.
        entry: tick of the keyframe with which it started; None before.
        drained: whether the end was reached.
        clean: whether nothing was damaged. A decoder that met damage carries some over a flush, or
            a keyframe: take a new one.
        frame_bytes: of a frame.
    """

    def __init__(self, codec: Any, threads: int, damage: Damage) -> None:
        codec.thread_count = threads
        codec.thread_type = "AUTO" if threads > 1 else "NONE"
        self.codec, self._threads, self._damage = codec, threads, damage
        self._errors = optional("av", "video", "Reading videos").error
        self._expendable = Expendable(codec)
        self.clean = True
        self.frame_bytes = codec.width * codec.height * 3 // 2
        self.restart()

    def restart(self) -> None:
        """Forget what is in the codec, and start with the keyframe that is fed next."""
        self.codec.flush_buffers()
        self.fed: dict[int, Unit] = {}
        self.skipped: dict[int, Unit] = {}
        self.lost: dict[int, Unit] = {}
        self.out: deque[tuple[Unit, Any]] = deque()
        self.entry: int | None = None
        self.drained = False
        self._damage.restart()

    def known(self) -> list[Unit]:
        """All that was fed and is not forgotten, in no order."""
        found = [unit for unit, _ in self.out]
        for units in (self.fed, self.skipped, self.lost):
            found += units.values()
        return found

    def pending(self, unit: Unit) -> bool:
        """Whether something that was decoded before a frame has not come out."""
        return any(fed.order < unit.order for fed in self.fed.values())

    def settle(self) -> None:
        """Let all out that is in the codec, to see whether it is damaged."""
        if self.fed and not self.drained:
            self.feed(None)

    def feed(self, unit: Unit | None, skip: bool = False) -> None:
        """Decode a packet, or with None what is left.

        Args:
            unit: the packet.
            skip: whether it is left out if no other needs it.
        """
        if unit is not None and self._leave_out(unit, skip):
            return
        self.drained = unit is None
        for _ in range(_DRAIN if unit is None else 1):
            try:
                frames = self.codec.decode(None if unit is None else unit.packet)
            except self._errors.EOFError:
                return
            except self._errors.FFmpegError:
                self._failed(unit)
                continue
            for frame in frames:
                self._came(frame)
            return

    def _leave_out(self, unit: Unit, skip: bool) -> bool:
        """Whether a packet is not decoded; prepares for one that is."""
        if self.entry is None:
            self.entry = unit.pts
        if unit.key:
            self._damage.enter(unit)
        if unit.packet.is_corrupt:  # what follows it may lack as well
            self._spoilt(unit)
        if unit.pts < self.entry:  # depends on what is before the keyframe
            return True
        if skip and self._expendable(unit.packet):
            self.skipped[unit.pts] = unit
            return True
        self.fed[unit.pts] = unit
        return False

    def _failed(self, unit: Unit | None) -> None:
        """A packet could not be decoded; threads say so late: it may be any that is on its way."""
        if unit is None or self._threads > 1:
            unit = min(self.fed.values(), key=lambda fed: fed.order, default=unit)
        if unit is not None:
            self._spoilt(unit)

    def _spoilt(self, unit: Unit) -> None:
        self._damage.note(unit)
        self.clean = False

    def _came(self, frame: Any) -> None:
        """Frames come out in the order in which they are shown; what was passed over is lost."""
        unit = self.fed.pop(frame.dts if frame.pts is None else frame.pts, None)
        if unit is None:
            return
        for lost in [lost for lost in self.fed.values() if lost.pts < unit.pts]:
            self.lost[lost.pts] = self.fed.pop(lost.pts)
            if lost.shown:
                self._spoilt(lost)
        self.skipped = {pts: left for pts, left in self.skipped.items() if pts > unit.pts}
        if frame.is_corrupt:
            self._spoilt(unit)
        self.out.append((unit, frame))
        self.frame_bytes = sum(plane.buffer_size for plane in frame.planes)

    def forget(self, start: int) -> None:
        """Let go of what is shown before a tick, but of the newest frame."""
        while len(self.out) > 1 and self.out[0][0].pts < start:
            self.out.popleft()
        self.lost = {pts: unit for pts, unit in self.lost.items() if pts > start}
