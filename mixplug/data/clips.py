"""Random clips of long videos, and views of them."""

from __future__ import annotations

import bisect
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from mixplug import sampling
from mixplug.data.clip_samplers import generators
from mixplug.data.multicrop import MultiCrop, multicrop_of
from mixplug.data.open_readers import OpenReaders, Request
from mixplug.data.videos import Videos, find_videos, index_of, reach, usable_starts
from mixplug.video import DecodeError

_SLOTS = 256  # of workers that count without disturbing each other


@dataclass(frozen=True)
class Place:
    """Where a clip is taken.

    Attributes:
        path: of the video.
        start: of its first frame, in seconds.
        corner: (top, left) of its crop, in pixels; None takes whole frames.
        key: of its views.
    """

    path: Path
    start: float
    corner: tuple[int, int] | None
    key: int


class VideoClips(Dataset[dict[str, Tensor]]):
    """Views of clips of ``frames`` frames, ``interval`` seconds apart, at random times (6.5.2).

    The start is uniform over all times at which a clip fits without a cut, damage or blank frames;
    one square of ``crop`` pixels is cut out at the same random place in all frames, and multi-crop
    views of that are what an item has. All of it depends on (seed, epoch, index) alone. The item of
    key ``epoch * len(dataset) + index`` belongs to that epoch, see
    :class:`mixplug.data.clip_samplers.ClipSampler`: workers need not be told.

    A clip that cannot be decoded is drawn anew, and counted.

    Args:
        video: a file; a folder of videos, or of the frames of one; 'shipped:bikes', ten seconds of
            a street; or several of these. The chance of a video is in the ratio of the number of
            its clips.
        frames: T, of a clip.
        interval: Δ, seconds from one frame to the next.
        crop: side of the square in pixels, None for whole frames.
        frames_per_epoch: length of an epoch, T times the number of clips; None is as many frames as
            there are in the usable spans.
        views: a :class:`mixplug.data.multicrop.MultiCrop`, or keys of one.
        across_cuts: whether a clip may have a cut in it (Table 6.8b).
        blanks: whether it may have blank frames.
        index: 'require' needs ``mixplug video index`` to have been run, 'build' does so where it
            has not (in each process, so not for several), 'ignore' knows of no cuts and no damage.
        backend: of :func:`mixplug.video.open_reader`.
        fps: frames per second of a folder of frames.
        cache_bytes: of decoded frames that each worker keeps, over all its videos, see
            :func:`mixplug.video.open_reader`. Random clips hardly ever meet in it.
        group: as many consecutive indices have clips that start within ``interval`` seconds of a
            common time. Those in one batch are decoded in one pass, in little more than the time
            of one. Each clip is as random as without, but a group's are not independent.
        seed: of all draws.
        retries: draws in place of one that cannot be decoded, before an item is given up.

    Attributes:
        videos: those that are used, and their indices.
        starts: (video, first, last), between which times a clip may start.
        reach: seconds from the first frame of a clip to its last.
        skipped: clips that could not be decoded so far, over all workers.

    Raises:
        KeyError: an unknown key of ``views``.
        ValueError: a setting that is not allowed, no such video, no index, a crop larger than the
            frames, or no video with a place for a clip, in which case it says what would help.
    """

    def __init__(
        self,
        video: Videos,
        frames: int = 8,
        interval: float = 1.0,
        crop: int | None = 300,
        frames_per_epoch: int | None = None,
        views: MultiCrop | Mapping[str, Any] | None = None,
        across_cuts: bool = False,
        blanks: bool = False,
        index: str = "require",
        backend: str = "auto",
        fps: float | None = None,
        cache_bytes: int = 0,
        group: int = 1,
        seed: int = 0,
        retries: int = 10,
    ) -> None:
        least = min(frames, group, 1 if crop is None else crop)
        if least < 1 or not interval > 0 or min(retries, cache_bytes) < 0:
            raise ValueError(
                f"VideoClips needs frames, group and crop >= 1, interval > 0, retries and "
                f"cache_bytes >= 0, got {frames}, {group}, {crop}, {interval}, {retries} and "
                f"{cache_bytes}."
            )
        self.frames, self.interval, self.crop = frames, interval, crop
        self.reach = reach(frames, interval)
        self.views = multicrop_of(views)
        self.group, self.seed, self.retries = group, seed, retries
        given = {path: index_of(path, index, backend, fps) for path in find_videos(video)}
        self.starts = usable_starts(given, frames, interval, across_cuts, blanks)
        self.videos = {path: given[path] for path, _, _ in self.starts}
        lengths = (last - first for _, first, last in self.starts)
        self._edges = list(itertools.accumulate(lengths, initial=0.0))
        self._fits()
        self.clips = self._count(frames_per_epoch)
        self._readers = OpenReaders(self.videos, backend, cache_bytes)
        self._skips = torch.zeros(_SLOTS, dtype=torch.int64).share_memory_()

    @property
    def skipped(self) -> int:
        """Clips that could not be decoded so far, over all workers."""
        return int(self._skips.sum())

    def __len__(self) -> int:
        return self.clips

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """The items of the first epoch: keys have no end."""
        return (self[key] for key in range(len(self)))

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        """The views of a clip: ``large`` (2, T, 3, H, W) and ``small`` (m, T, 3, h, w), uint8.

        Raises:
            IndexError: a negative key.
            ValueError: ``retries`` draws in place of the first could not be decoded either.
        """
        if key < 0:
            raise IndexError(f"Keys are epoch * {len(self)} + index >= 0, got {key}.")
        epoch, index = divmod(int(key), len(self))
        for attempt in range(1 + self.retries):
            place = self.place(epoch, index, attempt)
            try:
                clip = self.clip(place)
            except DecodeError as error:
                failed = f"{place.start:.3f} to {place.start + self.reach:.3f} s of {place.path}"
                self._skip(f"Another clip is taken for {failed}: {error}")
                if attempt == self.retries:
                    raise ValueError(
                        f"None of {1 + attempt} clips could be decoded for index {index} of epoch "
                        f"{epoch}, the last was {failed}: {error} Have damage left out: mixplug "
                        f"video index {place.path}"
                    ) from error
            else:
                return self.views(clip, place.key)
        raise AssertionError("there is one attempt at least")

    def __getitems__(self, keys: list[int]) -> list[dict[str, Tensor]]:
        """The items of a batch; clips that overlap in time are decoded in one pass."""
        places = [self.place(*divmod(int(key), len(self))) for key in keys]
        return [
            self[key] if clip is None else self.views(clip, place.key)
            for key, place, clip in zip(keys, places, self.read(places), strict=True)
        ]

    def place(self, epoch: int, index: int, attempt: int = 0) -> Place:
        """Where a clip is taken, at the first attempt and at later ones."""
        source = self._source(epoch, index, attempt)
        drawn = sampling.uniform((5,), source).tolist()
        first = index - index % self.group
        shared = drawn
        if first != index:
            shared = sampling.uniform((5,), self._source(epoch, first, attempt)).tolist()
        at = (shared[0] + shared[1] / (1 << 24)) * self._edges[-1]  # each has 24 random bits
        span = bisect.bisect_right(self._edges, at, hi=len(self.starts)) - 1
        path, start, last = self.starts[span]
        offset = min(at - self._edges[span], last - start)
        if self.group > 1:
            offset = _reflected(offset + self.interval * (2 * drawn[2] - 1), last - start)
        corner, key = None, sampling.key(source)
        if self.crop is not None:
            room = self.videos[path].height - self.crop, self.videos[path].width - self.crop
            corner = int(drawn[3] * (room[0] + 1)), int(drawn[4] * (room[1] + 1))
        return Place(path, start + offset, corner, key)

    def clip(self, place: Place) -> Tensor:
        """The frames of a place, (T, 3, h, w) uint8, RGB.

        Raises:
            DecodeError: one of them cannot be had.
        """
        request = self._request(place)
        return self._readers[request.path].read(request.times, request.crop)

    def read(self, places: Sequence[Place]) -> list[Tensor | None]:
        """The frames of several places, None where one of them cannot be had."""
        return self._readers.read([self._request(place) for place in places])

    def _request(self, place: Place) -> Request:
        times = tuple(place.start + frame * self.interval for frame in range(self.frames))
        if self.crop is None or place.corner is None:
            return Request(place.path, times)
        return Request(place.path, times, (*place.corner, self.crop, self.crop))

    def _source(self, epoch: int, index: int, attempt: int) -> torch.Generator:
        key = sampling.key(generators(self.seed, epoch, index).local)
        return sampling.generators(key, attempt).local

    def _skip(self, message: str) -> None:
        worker = get_worker_info()
        self._skips[0 if worker is None else (worker.id + 1) % _SLOTS] += 1
        warnings.warn(message, stacklevel=3)

    def _fits(self) -> None:
        for path, index in self.videos.items():
            if self.crop is not None and self.crop > min(index.height, index.width):
                raise ValueError(
                    f"{path} has frames of {index.height} x {index.width} pixels, which have no "
                    f"room for crop={self.crop}. Set crop to {min(index.height, index.width)} or "
                    f"less, or to None for whole frames."
                )

    def _count(self, frames_per_epoch: int | None) -> int:
        """Clips of an epoch."""
        if frames_per_epoch is None:
            seconds = ((path, last - first + self.reach) for path, first, last in self.starts)
            there = sum(length * self.videos[path].fps for path, length in seconds)
            return max(1, round(there) // self.frames)
        if frames_per_epoch < self.frames:
            raise ValueError(
                f"frames_per_epoch must be at least frames={self.frames}, got {frames_per_epoch}."
            )
        return frames_per_epoch // self.frames


def _reflected(offset: float, length: float) -> float:
    """Back into [0, length], as in a mirror at each end: what was uniform there still is."""
    offset %= 2 * length
    return min(offset, 2 * length - offset)
