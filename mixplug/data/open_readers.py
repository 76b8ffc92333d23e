"""The readers that a process has open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixplug.video import DecodeError, VideoIndex, VideoReader, open_reader
from mixplug.video.reader import Crop

_OPEN = 16


@dataclass(frozen=True)
class Request:
    """Frames that are wanted.

    Attributes:
        path: of the video.
        times: of the frames, in seconds, in order.
        crop: (top, left, height, width) of all of them; None is all.
    """

    path: Path
    times: tuple[float, ...]
    crop: Crop | None = None


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

    def read(self, requests: Sequence[Request]) -> list[Tensor | None]:
        """The frames (T, 3, h, w) of each request, None where one of them cannot be had.

        Requests that overlap in time are read in one pass: what lies between their frames is
        decoded once.
        """
        found: list[Tensor | None] = [None] * len(requests)
        for together in _overlapping(requests):
            clips = self._read_together([requests[place] for place in together])
            for place, clip in zip(together, clips, strict=True):
                found[place] = clip
        return found

    def _read_together(self, requests: Sequence[Request]) -> list[Tensor | None]:
        """In the order of time; all are of one video."""
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
        """Let go of all files; reading opens them again."""
        while self._open:
            self._open.popitem()[1].close()


def _overlapping(requests: Sequence[Request]) -> list[list[int]]:
    """Places of requests that overlap, directly or by way of others."""
    order = sorted(range(len(requests)), key=lambda n: (requests[n].path, requests[n].times[0]))
    parts: list[list[int]] = []
    end, path = 0.0, None
    for place in order:
        request = requests[place]
        if request.path != path or request.times[0] > end:
            parts.append([])
            end, path = request.times[-1], request.path
        parts[-1].append(place)
        end = max(end, request.times[-1])
    return parts
