"""Frames read by torchcodec, which uses FFmpeg's libraries of the system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mixplug.optional import install_line, optional
from mixplug.video.reader import Crop, DecodeError, VideoReader

_LACKS = (
    f"torchcodec is installed ({install_line('torchcodec')}), but cannot be loaded. It needs "
    "FFmpeg's libraries on the system (Debian: apt-get install ffmpeg), in a version that it "
    "supports. backend='pyav' includes its own libraries. Error of torchcodec: {}"
)


class TorchcodecReader(VideoReader):
    """See :func:`mixplug.video.open_reader`."""

    def __init__(self, path: str | Path, threads: int) -> None:
        self._threads = threads
        super().__init__(path)

    def _open(self) -> Any:
        try:
            decoders = optional("torchcodec.decoders", "torchcodec", "The backend torchcodec")
            decoder = decoders.VideoDecoder(str(self.path), num_ffmpeg_threads=self._threads)
        except (RuntimeError, ValueError, OSError) as error:
            if "libtorchcodec" in str(error):  # at import or at first use, depending on the version
                raise ImportError(_LACKS.format(str(error).strip().splitlines()[0])) from error
            raise ValueError(f"{self.path} cannot be opened as a video: {error}") from error
        metadata = decoder.metadata
        self._begin = metadata.begin_stream_seconds or 0.0
        self.duration = metadata.end_stream_seconds - self._begin
        self.fps = float(metadata.average_fps)
        self.size = tuple(decoder[0].shape[-2:])
        return decoder

    def _read(self, source: Any, times: Sequence[float], crop: Crop) -> Tensor:
        top, left, height, width = crop
        seconds = [time + self._begin for time in times]
        try:
            frames = source.get_frames_played_at(seconds=seconds).data
        except (RuntimeError, IndexError) as error:
            raise DecodeError(
                f"The frames of {self.path} at {min(times):.3f} to {max(times):.3f} s cannot be "
                f"decoded: {error}"
            ) from error
        return frames[..., top : top + height, left : left + width].contiguous()
