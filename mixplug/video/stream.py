"""The video stream of a file, and its clock."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixplug.optional import optional
from mixplug.video.packets import PacketQueue
from mixplug.video.program_stream import (
    CODECS,
    ProgramQueue,
    ProgramTimes,
    rate_of,
    times_of,
    without_guesses,
)

_ROUNDING = 1e-3  # rounding error of a time in float64, in ticks


@dataclass(frozen=True)
class Clock:
    """Converts between seconds after the first frame and ticks of a stream."""

    origin: int
    base: Fraction

    def tick(self, time: float) -> int:
        """The last tick at or before a time."""
        return self.origin + math.floor(time / self.base + _ROUNDING)

    def time(self, tick: int) -> float:
        """The time of a tick."""
        return float((tick - self.origin) * self.base)


@dataclass
class Stream:
    """A file with a video stream.

    Attributes:
        container: container object of PyAV.
        video: video stream of the container.
        times: times of the frames, if the file does not state all of them.
    """

    container: Any
    video: Any
    times: ProgramTimes | None = None

    @property
    def clock(self) -> Clock:
        """The clock of the stream; time 0 is the start of its first frame."""
        origin = self.video.start_time or 0 if self.times is None else self.times.origin
        return Clock(origin, self.video.time_base)

    @property
    def rate(self) -> Fraction | None:
        """Mean number of frames per second, if it is known."""
        if self.times is not None:
            return rate_of(self.video)
        rate: Fraction | None = self.video.average_rate or self.video.guessed_rate
        return rate or None

    @property
    def duration(self) -> float:
        """Duration in seconds, as the file states it; 0 if it does not."""
        base = self.video.time_base
        if self.times is not None:
            return float((self.times.end - self.times.origin) * base)
        if self.video.duration:
            return float(self.video.duration * base)
        whole = (self.container.duration or 0) / 1e6
        if "matroska" in self.container.format.name:  # states the end time
            return whole - float((self.video.start_time or 0) * base)
        return whole

    def packets(self) -> PacketQueue:
        """The packets of the stream from the current position on."""
        if self.times is None:
            return PacketQueue(self.container, self.video)
        return ProgramQueue(self.container, self.video, self.times)


def _opened(av: Any, path: str) -> Any:
    """Open a file whose title or maker may not be UTF-8, which PyAV 19 and later allow anyway."""
    try:
        return av.open(path, metadata_errors="replace")
    except TypeError:  # PyAV 19 has no such key
        return av.open(path)


def open_stream(path: Path) -> Stream:
    """Open the first video stream of a file.

    Raises:
        ValueError: FFmpeg cannot open the file, the file has no video stream, or it is a program
            stream with a codec whose packets do not tell in which order frames are shown.
    """
    av = optional("av", "video", "Reading videos")
    try:
        container = _opened(av, str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} cannot be opened as a video: {error}.") from error
    video = next((s for s in container.streams.video if s.codec_context is not None), None)
    if video is None:
        container.close()
        raise ValueError(f"{path} has no video that can be decoded.")
    if container.format.name != "mpeg":
        return Stream(container, video)
    if video.codec_context.name not in CODECS:
        container.close()
        raise ValueError(
            f"{path} is a program stream, which states the times of some frames only. "
            f"{advice(path)}"
        )
    without_guesses(container)
    return Stream(container, video, times_of(path))


def disorder(path: Path) -> str:
    """Message for a file whose times and frames are in different orders."""
    return (
        f"{path} states times in another order than that in which its frames are shown, as AVI "
        f"does with B-frames, so it is unknown when a frame is shown. {advice(path)}"
    )


def advice(path: Path) -> str:
    """How to make a file with a time for each frame. Copying the packets would keep their times."""
    target = path.with_name(f"{path.stem}.converted.mp4")
    names = " ".join(("-i", shlex.quote(str(path)), "-map 0:v:0 -c:v libx264 -crf 14"))
    return f"Decode it and encode it again: ffmpeg {names} {shlex.quote(str(target))}"
