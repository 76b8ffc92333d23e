"""Frames of a video at given times, whatever reads them."""

from __future__ import annotations

import ctypes
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

Crop = tuple[int, int, int, int]  # top, left, height, width

_READERS: weakref.WeakSet[VideoReader] = weakref.WeakSet()


def _abandon() -> None:
    """In a process that was just forked: let go of what the parent has opened, and free nothing.

    Freeing a decoder waits for its threads, and a fork has none of them; so what is no longer
    needed must not be collected either.
    """
    for reader in _READERS:
        if reader._source is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(reader._source))
            reader._source = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon)


class DecodeError(ValueError):
    """A frame that is wanted, and cannot be had."""


class VideoReader(ABC):
    """Frames at given times. Opened by the process that reads: pickled, it is a path and options.

    A process that was forked from the one that has opened it opens it again, since both would move
    the same file's position, and a decoder's threads do not live on in a fork.

    Args:
        path: of the video.

    Attributes:
        duration: seconds.
        fps: mean frames per second.
        size: (height, width) of a frame as it is shown.
        skipped: damaged packets so far, each counted once.
    """

    duration: float
    fps: float
    size: tuple[int, int]
    skipped: int = 0
    _source: Any = None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._opened()
        _READERS.add(self)

    def read(self, times: Sequence[float], crop: Crop | None = None) -> Tensor:
        """The frames that are shown at some times: the last that begins at or before each.

        Args:
            times: T seconds in [0, duration), in any order, also repeated.
            crop: (top, left, height, width) in pixels, the same in all frames; None is all.

        Returns:
            (T, 3, h, w) uint8, RGB.

        Damage that decodes to some picture without an error is not noticed; no decoder can. Of
        H.264 and MPEG-4 most is, of VP9 hardly any.

        Raises:
            DecodeError: a frame is damaged, or depends on damage before it.
            ValueError: no times, one outside of the video, or a crop that is larger than a frame.
        """
        source = self._opened()
        if not len(times):
            raise ValueError("read needs one time at least, got none.")
        outside = [t for t in times if not 0 <= t < self.duration]
        if outside:
            raise ValueError(
                f"{self.path} is read at times in [0, {self.duration:.3f}) s, got {outside[0]:g}."
            )
        return self._read(source, times, self._within(crop))

    def _within(self, crop: Crop | None) -> Crop:
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
        """Let go of the file; reading opens it again."""
        self._source = None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # what is open refers to itself; left to the collector, it might be freed in a fork
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _READERS.add(self)

    def _opened(self) -> Any:
        if self._source is None:
            if not self.path.exists():
                raise ValueError(f"There is no video {self.path}.")
            self._source = self._open()
        return self._source

    @abstractmethod
    def _open(self) -> Any:
        """Open the file, and set duration, fps and size."""

    @abstractmethod
    def _read(self, source: Any, times: Sequence[float], crop: Crop) -> Tensor: ...
