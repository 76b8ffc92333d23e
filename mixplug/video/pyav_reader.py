"""Frames read by PyAV, which includes FFmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.video.convert import Converter, quarter_turns
from mixplug.video.decoder import FrameDecoder, LostError, OrderError
from mixplug.video.reader import Crop, DecodeError, VideoReader
from mixplug.video.stream import advice, disorder


class PyAVReader(VideoReader):
    """See :func:`mixplug.video.open_reader`."""

    @dataclass
    class Source:
        """The open file."""

        decoder: FrameDecoder
        turns: int
        stored: tuple[int, int]  # (height, width) of a frame before it is turned upright

    def __init__(
        self, path: str | Path, keyframes: Sequence[float], cache_bytes: int, threads: int
    ) -> None:
        self._keyframes, self._cache_bytes, self._threads = keyframes, cache_bytes, threads
        super().__init__(path)

    def _open(self) -> Source:
        decoder = FrameDecoder(self.path, self._keyframes, self._cache_bytes, self._threads)
        try:
            return self._probe(decoder)
        except OrderError:
            decoder.container.close()
            raise ValueError(disorder(self.path)) from None
        except BaseException:
            decoder.container.close()
            raise

    def _probe(self, decoder: FrameDecoder) -> Source:
        """Read the video's properties."""
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
        return self.Source(decoder, turns, (high, wide))

    def _read(self, source: Source, times: Sequence[float], crop: Crop) -> Tensor:
        convert = Converter(crop, source.turns)
        clip = torch.empty(len(times), 3, crop[2], crop[3], dtype=torch.uint8)
        for place in sorted(range(len(times)), key=times.__getitem__):
            clip[place] = self._pixels(source, times[place], convert)
        return clip

    def _pixels(self, source: Source, time: float, convert: Converter) -> Tensor:
        what = f"The frame of {self.path} at {time:.3f} s"
        try:
            frame = self._frame(source.decoder, time)
            if (frame.height, frame.width) == source.stored:
                return convert(frame)
        except DecodeError:
            raise
        except Exception as error:  # of any library; the decoder's state is unknown then
            self.close()
            raise DecodeError(f"{what} cannot be decoded: {error}.") from error
        raise DecodeError(
            f"{what} has {frame.height} x {frame.width} pixels, but the first frame has "
            f"{source.stored[0]} x {source.stored[1]}."
        )

    def _frame(self, decoder: FrameDecoder, time: float) -> Any:
        try:
            return decoder.frame_at(decoder.clock.tick(time)).frame
        except OrderError:
            raise DecodeError(disorder(self.path)) from None
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
