"""The readers that a process has open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from mixplug.video import VideoIndex, VideoReader, open_reader

_OPEN = 16


class OpenReaders:
    """A reader for each of some videos, opened when it is wanted; at most 16 stay open.

    Nothing is open until the first read, and what is open is opened again by a process that was
    forked, or that this was sent to: each worker of a loader reads for itself.

    Args:
        indices: of the videos.
        backend: see :func:`mixplug.video.open_reader`.
        cache_bytes: of decoded frames, over all videos.
    """

    def __init__(
        self, indices: Mapping[Path, VideoIndex], backend: str = "auto", cache_bytes: int = 0
    ) -> None:
        self._indices, self._backend = indices, backend
        self._cache_bytes = cache_bytes // min(len(indices), _OPEN)
        self._open: OrderedDict[Path, VideoReader] = OrderedDict()  # used last is last

    def __getitem__(self, path: Path) -> VideoReader:
        if path not in self._open:
            while len(self._open) >= _OPEN:
                self._open.popitem(last=False)[1].close()
            index = self._indices[path]
            self._open[path] = open_reader(
                path,
                "auto" if path.is_dir() else self._backend,
                index.fps if path.is_dir() else None,
                index.keyframes,
                self._cache_bytes,
            )
        self._open.move_to_end(path)
        return self._open[path]

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Let go of all files; reading opens them again."""
        while self._open:
            self._open.popitem()[1].close()
