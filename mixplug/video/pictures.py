"""Small pictures of all frames of a video in order, as input of a scan."""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixplug.image_files import opened, to_rgb, upright, upright_size
from mixplug.optional import optional
from mixplug.video.fingerprint import frame_files
from mixplug.video.open import open_reader
from mixplug.video.spans import Span
from mixplug.video.stream import disorder, open_stream
from mixplug.video.table import PacketTable

_LATE, _SHARE = 9, 0.05  # frames in a wrong order, and their share, that damage may explain
_DRAIN = 64  # largest number of errors that the decoder's threads may report at the end
WIDTH = 256  # pixels; PySceneDetect also reduces frames to metadata this width
Tick = Callable[[float, float, str], None]  # seconds done, seconds in total, name of the step


@dataclass(frozen=True)
class Picture:
    """One frame.

    Attributes:
        time: time in seconds.
        pixels: (h, w, 3) uint8 array, BGR; None for a damaged frame.
    """

    time: float
    pixels: Any


class Pictures(ABC):
    """Data of a video for a scan.

    Attributes:
        metadata: fields of a VideoIndex that need no decoding.
        missing: parts that the file's header promises but the file does not have.
    """

    metadata: dict[str, Any]
    missing: list[Span]

    @abstractmethod
    def from_before(self, time: float | None, count: int) -> Iterator[Picture]:
        """Pictures from at least ``count`` frames before a time on; None means from the start."""

    @abstractmethod
    def damaged_span(self, time: float) -> Span:
        """The part that is unusable if the frame at a time is damaged."""

    def close(self) -> None:  # noqa: B027
        """Close the file."""


class FilePictures(Pictures):
    """Pictures of a video file, decoded by several threads and reduced in size.

    Args:
        path: path of the file.
        threads: number of threads of the decoder; None uses all cores.
        tick: function that receives the progress of reading the packets.
    """

    def __init__(self, path: Path, threads: int | None, tick: Tick) -> None:
        with open_reader(path) as reader:
            height, width = reader.size
        av = optional("av", "video", "Reading videos")
        self._path, self._size, self._faulty = path, (height, width), False
        self._scaler = av.video.reformatter.VideoReformatter()
        self._opened = opened = open_stream(path)
        duration, clock = opened.duration, opened.clock
        self._clock = clock
        self._codec = codec = opened.video.codec_context
        codec.thread_type, codec.thread_count = "AUTO", threads or 0
        codec.options = {"skip_loop_filter": "noref"}  # invisible in small pictures
        table = PacketTable.of(
            opened.packets(),
            lambda pts: tick(clock.time(pts), duration, "reading packets"),
            bool(codec.has_b_frames),
        )
        if not table.shown:
            raise ValueError(f"{path} has no frame that can be decoded.")
        self._table = table
        end = self._end()
        self.missing = [(end, duration)] if duration - end > self._frame() else []
        self._duration = duration  # a reader accepts times before it
        self.metadata = {
            "duration": self._duration,
            "fps": float(opened.rate or len(table.shown) / end),
            "width": width,
            "height": height,
            "frames": len(table.shown),
            "codec": codec.name,
            "keyframes": tuple(clock.time(pts) for pts in table.keyframes),
        }

    def _frame(self) -> float:
        rate = self._opened.rate
        return 1 / float(rate) if rate else 0.04

    def _end(self) -> float:
        """End of the last frame, if it lasts as long as an average frame."""
        return self._clock.time(self._table.shown[-1]) + self._frame()

    def from_before(self, time: float | None, count: int) -> Iterator[Picture]:
        """See :class:`Pictures`."""
        table, clock = self._table, self._clock
        key = table.keyframes[0] if time is None else table.keyframe_before(clock.tick(time), count)
        place, newest, late = bisect.bisect_left(table.shown, key), None, 0
        for frame in self._decoded(key):
            pts = frame.dts if frame.pts is None else frame.pts
            self._faulty = self._faulty or frame.is_corrupt
            late += newest is not None and pts <= newest and not self._faulty
            if late > max(_LATE, _SHARE * place):
                raise ValueError(disorder(self._path))
            newest = pts
            while place < len(table.shown) and table.shown[place] < pts:
                yield Picture(clock.time(table.shown[place]), None)
                place += 1
            if place < len(table.shown) and table.shown[place] == pts:
                damaged = frame.is_corrupt or pts in table.corrupt
                yield Picture(clock.time(pts), None if damaged else self._small(frame))
                place += 1
        for pts in table.shown[place:]:
            yield Picture(clock.time(pts), None)

    def _decoded(self, key: int) -> Iterator[Any]:
        """Frames from a keyframe on, or from before it if decoding cannot start there."""
        queue = self._opened.packets()
        queue.seek(key)
        while True:
            while not queue.units and not queue.ended:
                queue.more()
            if not queue.units:
                break
            yield from self._frames(queue.units.popleft().packet) or ()
        for _ in range(_DRAIN):
            rest = self._frames(None)
            if rest is not None:
                yield from rest
                return

    def _frames(self, packet: Any) -> list[Any] | None:
        """The frames that come out of the decoder; None for an error, which lacks a frame."""
        try:
            frames: list[Any] = self._codec.decode(packet)
        except Exception:  # PyAV raises errors of Python, too
            self._faulty = True
            return None
        return frames

    def _small(self, frame: Any) -> Any:
        if (frame.height, frame.width) not in (self._size, self._size[::-1]):  # may be turned
            return None
        try:
            return self._reduced(frame)
        except Exception:  # of any library: the frame cannot be read
            return None

    def _reduced(self, frame: Any) -> Any:
        wide = min(WIDTH, frame.width)
        high = max(1, round(frame.height * wide / frame.width))
        small = self._scaler.reformat(
            frame, width=wide, height=high, format="bgr24", interpolation="BILINEAR"
        )
        return small.to_ndarray()

    def damaged_span(self, time: float) -> Span:
        """See :class:`Pictures`."""
        start, end = self._table.damaged_ticks(self._clock.tick(time))
        return self._clock.time(start), self._duration if end is None else self._clock.time(end)

    def close(self) -> None:
        """Close the file."""
        self._opened.container.close()


class FolderPictures(Pictures):
    """Pictures of a folder of frames.

    Args:
        path: path of the folder.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._files, self._fps = frame_files(path), fps
        with open_reader(path, fps=fps) as reader:
            height, width = reader.size
        self.missing: list[Span] = []
        self.metadata = {
            "duration": len(self._files) / fps,
            "fps": fps,
            "width": width,
            "height": height,
            "frames": len(self._files),
            "codec": "images",
            "keyframes": (),
        }

    def from_before(self, time: float | None, count: int) -> Iterator[Picture]:
        """See :class:`Pictures`."""
        first = 0 if time is None else max(0, round(time * self._fps) - count)
        for place in range(first, len(self._files)):
            yield Picture(place / self._fps, self._small(self._files[place]))

    def _small(self, file: Path) -> Any:
        resampling = optional("PIL.Image", "video", "Reading images").Resampling
        numpy = optional("numpy", "video", "Reading images")
        try:
            with opened(file) as picture:
                if upright_size(picture) != (self.metadata["height"], self.metadata["width"]):
                    return None
                picture.draft("RGB", (WIDTH, WIDTH))  # decodes JPEGs at reduced size
                rgb = upright(to_rgb(picture), picture)
                wide = min(WIDTH, rgb.width)
                high = max(1, round(rgb.height * wide / rgb.width))
                small = rgb.resize((wide, high), resampling.BOX)
        except ValueError:
            return None
        return numpy.ascontiguousarray(numpy.asarray(small)[..., ::-1])

    def damaged_span(self, time: float) -> Span:
        """See :class:`Pictures`."""
        frame = round(time * self._fps)
        return frame / self._fps, (frame + 1) / self._fps
