"""Frames read by torchcodec, which uses FFmpeg's libraries of the system.

torchcodec reports the time of each frame that it returns. A frame that is not shown at the time
asked for is read again by PyAV.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.optional import install_line, optional
from mixplug.video.pyav_reader import PyAVReader
from mixplug.video.reader import Crop, DecodeError, VideoReader

_LACKS = (
    f"torchcodec is installed ({install_line('torchcodec')}), but cannot be loaded. It needs "
    "FFmpeg's libraries on the system (Debian: apt-get install ffmpeg), in a version that it "
    "supports. backend='pyav' includes its own libraries. Error of torchcodec: {}"
)


_ROUNDING = 1e-7  # seconds; a frame's own time may be rounded to just before its start
_PROGRAM = b"\0\0\1\xba"  # first bytes of a program stream


class TorchcodecReader(VideoReader):
    """See :func:`mixplug.video.open_reader`."""

    def __init__(self, path: str | Path, threads: int) -> None:
        self._threads = threads
        self._pyav: PyAVReader | None = None  # opened when it is needed
        super().__init__(path)

    def _open(self) -> Any:
        with self.path.open("rb") as file:
            if file.read(len(_PROGRAM)) == _PROGRAM:
                raise ValueError(
                    f"{self.path} is a program stream, which states the times of some frames only. "
                    f"torchcodec may give other frames than those asked for. Use backend='pyav'."
                )
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
        seconds = [time + self._begin + _ROUNDING for time in times]
        try:
            found = source.get_frames_played_at(seconds=seconds)
        except Exception as error:  # of any library; also at the end of intact files
            return self._by_pyav(times, crop, f"torchcodec reports: {error}")
        # after a seek in a transport stream it returns the first frame that it finds
        asked, starts = torch.tensor(seconds, dtype=torch.float64), found.pts_seconds.double()
        right = (starts <= asked) & (asked < starts + found.duration_seconds)
        clip: Tensor = found.data[..., top : top + height, left : left + width].contiguous()
        wrong = (~right).nonzero().flatten().tolist()
        if wrong:
            start = float(starts[wrong[0]]) - self._begin
            reason = f"torchcodec returned the frame of {start:.3f} s"
            clip[wrong] = self._by_pyav([times[place] for place in wrong], crop, reason)
        return clip

    def _by_pyav(self, times: Sequence[float], crop: Crop, reason: str) -> Tensor:
        """Frames that torchcodec did not return.

        Raises:
            DecodeError: PyAV is not installed, or cannot decode them either.
        """
        try:
            if self._pyav is None:
                self._pyav = PyAVReader(self.path, (), cache_bytes=0, threads=self._threads)
            return self._pyav.read(times, crop)
        except DecodeError:
            raise
        except (ImportError, ValueError) as error:
            raise DecodeError(
                f"The frames of {self.path} at {min(times):.3f} to {max(times):.3f} s cannot be "
                f"decoded: {reason}, and PyAV cannot read them either: {error}"
            ) from error

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._pyav is not None:
            self._pyav.close()
        super().close()
