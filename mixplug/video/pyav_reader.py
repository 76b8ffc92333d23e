"""Frames read by PyAV, which includes FFmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixplug.video.convert import Converter, quarter_turns
from mixplug.video.decoder import FrameDecoder, LostError
from mixplug.video.reader import Crop, DecodeError, VideoReader
from mixplug.video.stream import advice


class PyAVReader(VideoReader):
    """See :func:`mixplug.video.open_reader`."""

    @dataclass
    class Source:
        """The open file."""

        decoder: FrameDecoder
        turns: int

    def __init__(
        self, path: str | Path, keyframes: Sequence[float], cache_bytes: int, threads: int
    ) -> None:
        self._keyframes, self._cache_bytes, self._threads = keyframes, cache_bytes, threads
        super().__init__(path)

    def _open(self) -> Source:
        decoder = FrameDecoder(self.path, self._keyframes, self._cache_bytes, self._threads)
        try:
            return self.Source(decoder, self._probe(decoder))
        except BaseException:
            decoder.container.close()
            raise

    def _probe(self, decoder: FrameDecoder) -> int:
        """Read the video's properties; returns the quarter turns that make frames upright."""
        self.duration = decoder.opened.duration
        if not self.duration > 0:
            raise ValueError(f"{self.path} does not state its duration. {advice(self.path)}")
        self.fps = float(decoder.opened.rate or 0)
        frame = decoder.first()  # headers may give a wrong size and no rotation
        if frame is None:
            raise ValueError(f"{self.path} has no frame that can be decoded.")
        turns = quarter_turns(frame)
        wide, high = frame.width, frame.height
        self.size = (wide, high) if turns % 2 else (high, wide)
        return turns

    def _read(self, source: Source, times: Sequence[float], crop: Crop) -> Tensor:
        convert = Converter(crop, source.turns)
        clip = torch.empty(len(times), 3, crop[2], crop[3], dtype=torch.uint8)
        for place in sorted(range(len(times)), key=times.__getitem__):
            clip[place] = convert(self._frame(source.decoder, times[place]))
        return clip

    def _frame(self, decoder: FrameDecoder, time: float) -> object:
        try:
            return decoder.frame_at(decoder.clock.tick(time)).frame
        except LostError as lost:
            reason = "the file has no packets there"
            if lost.damage is not None:
                damaged = decoder.clock.time(lost.damage)
                reason = f"it depends on the damaged packet of the frame at {damaged:.3f} s"
            raise DecodeError(
                f"The frame of {self.path} at {time:.3f} s cannot be decoded: {reason}."
            ) from None
        finally:
            self.skipped = len(decoder.damage.places)

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._source is not None:
            self._source.decoder.container.close()
        super().close()
