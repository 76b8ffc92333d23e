"""The video stream of a file, and its clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixplug.optional import optional

_ROUNDING = 1e-3  # rounding error of a time in float64, in ticks


def open_stream(path: Path) -> tuple[Any, Any]:
    """A container and its video stream.

    Raises:
        ValueError: FFmpeg cannot open the file, or the file has no video stream.
    """
    av = optional("av", "video", "Reading videos")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} cannot be opened as a video: {error}.") from error
    stream = next((s for s in container.streams.video if s.codec_context is not None), None)
    if stream is None:
        container.close()
        raise ValueError(f"{path} has no video that can be decoded.")
    return container, stream


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


def clock_of(stream: Any) -> Clock:
    """The clock of a stream; time 0 is the start of its first frame."""
    return Clock(stream.start_time or 0, stream.time_base)


def duration_of(container: Any, stream: Any) -> float:
    """Duration in seconds, as the file states it."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    whole = (container.duration or 0) / 1e6
    if "matroska" in container.format.name:  # states the end time
        return whole - float((stream.start_time or 0) * stream.time_base)
    return whole
