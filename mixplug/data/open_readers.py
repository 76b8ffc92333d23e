"""The video readers that a process keeps open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixplug.video import DecodeError, VideoIndex, VideoReader, open_reader
from mixplug.video.reader import Crop

_OPEN = 16  # readers


@dataclass(frozen=True)
class Request:
    """Frames to read from a video.

    Attributes:
        path: path of the video.
        times: times of the frames in seconds, in order.
        crop: (top, left, height, width) of all frames; None means whole frames.
    """

    path: Path
    times: tuple[float, ...]
    crop: Crop | None = None


class OpenReaders:
    """A reader for each of several videos, opened on first use; at most 16 stay open.

    Nothing is opened before the first read. A forked process, or one that receives this object,
    opens the files again, so each worker of a loader has its own readers.

    Args:
        indices: index of each video.
        backend: see :func:`mixplug.video.open_reader`.
        cache_bytes: size of the cache of decoded frames over all videos.
    """

    def __init__(
        self, indices: Mapping[Path, VideoIndex], backend: str = "auto", cache_bytes: int = 0
    ) -> None:
        self._indices, self._backend = indices, backend
        self._cache_bytes = cache_bytes // min(len(indices), _OPEN)
        self._open: OrderedDict[Path, VideoReader] = OrderedDict()  # most recently used last

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

    def read(self, requests: Sequence[Request]) -> list[Tensor | None]:
        """The frames (T, 3, h, w) of each request; None if one of its frames cannot be decoded.

        Requests that overlap in time are read in one pass, so the frames between their frames are
        decoded only once.
        """
        found: list[Tensor | None] = [None] * len(requests)
        for group in _overlapping(requests):
            clips = self._read_together([requests[number] for number in group])
            for number, clip in zip(group, clips, strict=True):
                found[number] = clip
        return found

    def _read_together(self, requests: Sequence[Request]) -> list[Tensor | None]:
        """Read requests of one video in the order of time."""
        reader = self[requests[0].path]
        clips: list[list[Tensor] | None] = [[] for _ in requests]
        for time, number in sorted((t, n) for n, r in enumerate(requests) for t in r.times):
            clip = clips[number]
            if clip is not None:
                try:
                    clip.append(reader.read([time], requests[number].crop)[0])
                except DecodeError:
                    clips[number] = None
        return [None if clip is None else torch.stack(clip) for clip in clips]

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Close all files; reading opens them again."""
        while self._open:
            self._open.popitem()[1].close()


def _overlapping(requests: Sequence[Request]) -> list[list[int]]:
    """Groups of indices of requests that overlap, directly or through other requests."""
    order = sorted(range(len(requests)), key=lambda n: (requests[n].path, requests[n].times[0]))
    groups: list[list[int]] = []
    end, path = 0.0, None
    for number in order:
        request = requests[number]
        if request.path != path or request.times[0] > end:
            groups.append([])
            end, path = request.times[-1], request.path
        groups[-1].append(number)
        end = max(end, request.times[-1])
    return groups
