"""Base class of video readers: frames at given times."""

from __future__ import annotations

import ctypes
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mixplug.renamed import old_names

Crop = tuple[int, int, int, int]  # top, left, height, width

_READERS: weakref.WeakSet[VideoReader] = weakref.WeakSet()


def _forget_sources() -> None:
    """In a forked process, forget the files that the parent opened without freeing them.

    Freeing a decoder waits for its threads, which do not exist in a fork. So the unused objects
    must not be garbage-collected either.
    """
    for reader in _READERS:
        if reader._source is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(reader._source))
            reader._source = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_sources)


class DecodeError(ValueError):
    """A requested frame cannot be decoded."""


class VideoReader(ABC):
    """Frames of a video at given times. Pickling stores the path and options, not the open file.

    A forked process opens the file again, because otherwise both processes would move the same file
    position, and the threads of a decoder do not exist in a fork.

    Args:
        path: path of the video.

    Attributes:
        duration: duration in seconds.
        fps: mean number of frames per second.
        size: (height, width) of a displayed frame.
        skipped: number of damaged packets so far, each counted once.
    """

    duration: float
    fps: float
    size: tuple[int, int]
    skipped: int = 0
    _source: Any = None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._get_source()
        _READERS.add(self)

    def read(self, times: Sequence[float], crop: Crop | None = None) -> Tensor:
        """The frames that are shown at given times; a frame is shown until the next one starts.

        Args:
            times: T times in seconds in [0, duration), in any order, repetitions allowed.
            crop: (top, left, height, width) in pixels, the same for all frames; None means whole
                frames.

        Returns:
            (T, 3, h, w) uint8, RGB.

        Damage that decodes to a picture without an error cannot be detected by any decoder. In
        H.264 and MPEG-4 most damage is detected, in VP9 hardly any.

        Raises:
            DecodeError: a frame is damaged, or depends on earlier damage.
            ValueError: no times, a time outside the video, or a crop outside the frame.
        """
        source = self._get_source()
        if not len(times):
            raise ValueError("read needs at least one time, got 0.")
        outside = [t for t in times if not 0 <= t < self.duration]
        if outside:
            raise ValueError(
                f"Times for {self.path} must be in [0, {self.duration:.3f}) s, got {outside[0]:g}."
            )
        return self._read(source, times, self._check_crop(crop))

    def _check_crop(self, crop: Crop | None) -> Crop:
        height, width = self.size
        if crop is None:
            return 0, 0, height, width
        top, left, high, wide = crop
        if min(top, left) < 0 or min(high, wide) < 1 or top + high > height or left + wide > width:
            raise ValueError(
                f"A crop (top, left, height, width) must lie within {height} x {width} pixels of "
                f"{self.path}, got {tuple(crop)}."
            )
        return top, left, high, wide

    def close(self) -> None:
        """Close the file; reading opens it again."""
        self._source = None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # the open file has reference cycles; garbage collection might free it in a fork
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _READERS.add(self)

    def _get_source(self) -> Any:
        if self._source is None:
            if not self.path.exists():
                raise ValueError(f"There is no file or folder {self.path}.")
            self._source = self._open()
        return self._source

    @abstractmethod
    def _open(self) -> Any:
        """Open the file, set duration, fps and size, and return the open file."""

    @abstractmethod
    def _read(self, source: Any, times: Sequence[float], crop: Crop) -> Tensor: ...


__getattr__ = old_names(__name__)
