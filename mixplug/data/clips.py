"""Random clips from long videos, and augmented views of the clips."""

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

_SLOTS = 256  # counters of skipped clips; each worker adds to its own one


@dataclass(frozen=True)
class Place:
    """Position of a clip in time and space.

    Attributes:
        path: path of the video.
        start: time of the first frame, in seconds.
        corner: (top, left) of the crop in pixels; None means whole frames.
        key: key from which the views are drawn.
    """

    path: Path
    start: float
    corner: tuple[int, int] | None
    key: int


class VideoClips(Dataset[dict[str, Tensor]]):
    """Views of clips of ``frames`` frames, ``interval`` seconds apart, at random times (6.5.2).

    The start time is uniform over all times at which a clip contains no cut, no damage and no blank
    frame. One square of ``crop`` pixels is cut at the same random position in all frames. An item
    consists of multi-crop views of this clip. All draws depend on (seed, epoch, index) alone. The
    key ``epoch * len(dataset) + index`` names an item of that epoch, so workers need no message
    when a new epoch starts; see :class:`mixplug.data.clip_samplers.ClipSampler`.

    If a clip cannot be decoded, another one is drawn, and ``skipped`` counts it.

    Args:
        video: a file; a folder of videos; a folder with the frames of one video; 'shipped:bikes'
            (ten seconds of a street); or a sequence of these. A video is drawn with probability
            proportional to the total length of its allowed start times.
        frames: T, number of frames of a clip.
        interval: Δ, seconds between consecutive frames.
        crop: side of the square crop in pixels; None means whole frames.
        frames_per_epoch: length of an epoch in frames, that is T times the number of clips; None
            uses the number of frames in the usable spans.
        views: a :class:`mixplug.data.multicrop.MultiCrop`, or a dict of its keys.
        across_cuts: whether a clip may contain a cut (Table 6.8b).
        blanks: whether a clip may contain blank frames.
        index: 'require' needs the index that ``mixplug video index`` writes; 'build' creates a
            missing index (in each process, so do not use it with several processes); 'ignore' uses
            no index, so cuts and damage are unknown.
        backend: backend of :func:`mixplug.video.open_reader`.
        fps: frames per second of a folder of frames.
        cache_bytes: size of each worker's cache of decoded frames over all videos, see
            :func:`mixplug.video.open_reader`. Random clips rarely profit from it.
        group: number of consecutive indices whose clips start within ``interval`` seconds of a
            common time. Clips of a group that are in the same batch are decoded in one pass, which
            takes little longer than one clip. Each single clip has the same distribution as without
            groups, but the clips of a group are not independent.
        seed: seed of all random draws.
        retries: number of other clips that are tried if a clip cannot be decoded.

    Attributes:
        videos: videos with at least one usable clip, and their indices.
        starts: (video, first, last): clips may start between the times ``first`` and ``last``.
        reach: seconds from the first frame of a clip to its last frame.
        skipped: number of clips that could not be decoded so far, over all workers.

    Raises:
        KeyError: an unknown key of ``views``.
        ValueError: an invalid setting, a missing video or index, a crop larger than the frames, or
            no video with room for a clip. The message says which setting would help.
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
        indices = {path: index_of(path, index, backend, fps) for path in find_videos(video)}
        self.starts = usable_starts(indices, frames, interval, across_cuts, blanks)
        self.videos = {path: indices[path] for path, _, _ in self.starts}
        lengths = (last - first for _, first, last in self.starts)
        self._edges = list(itertools.accumulate(lengths, initial=0.0))
        self._check_crop()
        self.clips = self._count(frames_per_epoch)
        self._readers = OpenReaders(self.videos, backend, cache_bytes)
        self._skips = torch.zeros(_SLOTS, dtype=torch.int64).share_memory_()

    @property
    def skipped(self) -> int:
        """Number of clips that could not be decoded so far, over all workers."""
        return int(self._skips.sum())

    def __len__(self) -> int:
        return self.clips

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """The items of the first epoch. Keys have no upper bound, so all epochs would never end."""
        return (self[key] for key in range(len(self)))

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        """The views of a clip: ``large`` (2, T, 3, H, W) and ``small`` (m, T, 3, h, w), uint8.

        Raises:
            IndexError: a negative key.
            ValueError: neither the first clip nor any of the ``retries`` others could be decoded.
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
                self._skip(f"Cannot decode {failed}, so another clip is drawn: {error}")
                if attempt == self.retries:
                    raise ValueError(
                        f"None of the {1 + attempt} clips drawn for index {index} of epoch {epoch} "
                        f"could be decoded. The last one was {failed}: {error} To exclude damaged "
                        f"parts, run: mixplug video index {place.path}"
                    ) from error
            else:
                return self.views(clip, place.key)
        raise AssertionError("the loop makes at least one attempt")

    def __getitems__(self, keys: list[int]) -> list[dict[str, Tensor]]:
        """The items of a batch; clips that overlap in time are decoded in one pass."""
        places = [self.place(*divmod(int(key), len(self))) for key in keys]
        return [
            self[key] if clip is None else self.views(clip, place.key)
            for key, place, clip in zip(keys, places, self.read(places), strict=True)
        ]

    def place(self, epoch: int, index: int, attempt: int = 0) -> Place:
        """Position of a clip, for the first attempt or a later one."""
        source = self._source(epoch, index, attempt)
        drawn = sampling.uniform((5,), source).tolist()
        first = index - index % self.group
        shared = drawn
        if first != index:
            shared = sampling.uniform((5,), self._source(epoch, first, attempt)).tolist()
        # Two numbers of 24 random bits each give enough resolution for hours of video.
        position = (shared[0] + shared[1] / (1 << 24)) * self._edges[-1]
        span = bisect.bisect_right(self._edges, position, hi=len(self.starts)) - 1
        path, start, last = self.starts[span]
        offset = min(position - self._edges[span], last - start)
        if self.group > 1:
            offset = _reflect(offset + self.interval * (2 * drawn[2] - 1), last - start)
        corner, key = None, sampling.key(source)
        if self.crop is not None:
            room = self.videos[path].height - self.crop, self.videos[path].width - self.crop
            corner = int(drawn[3] * (room[0] + 1)), int(drawn[4] * (room[1] + 1))
        return Place(path, start + offset, corner, key)

    def clip(self, place: Place) -> Tensor:
        """The frames at a place, (T, 3, h, w) uint8, RGB.

        Raises:
            DecodeError: a frame cannot be decoded.
        """
        request = self._request(place)
        return self._readers[request.path].read(request.times, request.crop)

    def read(self, places: Sequence[Place]) -> list[Tensor | None]:
        """The frames at several places; None for a clip with a frame that cannot be decoded."""
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

    def _check_crop(self) -> None:
        for path, index in self.videos.items():
            if self.crop is not None and self.crop > min(index.height, index.width):
                raise ValueError(
                    f"crop={self.crop} is larger than the frames of {path}, which have "
                    f"{index.height} x {index.width} pixels. Set crop to at most "
                    f"{min(index.height, index.width)}, or to None for whole frames."
                )

    def _count(self, frames_per_epoch: int | None) -> int:
        """Number of clips in an epoch."""
        if frames_per_epoch is None:
            seconds = ((path, last - first + self.reach) for path, first, last in self.starts)
            usable = sum(length * self.videos[path].fps for path, length in seconds)
            return max(1, round(usable) // self.frames)
        if frames_per_epoch < self.frames:
            raise ValueError(
                f"frames_per_epoch must be at least frames={self.frames}, got {frames_per_epoch}."
            )
        return frames_per_epoch // self.frames


def _reflect(offset: float, length: float) -> float:
    """Reflect an offset at both ends into [0, length]; a uniform distribution stays uniform."""
    offset %= 2 * length
    return min(offset, 2 * length - offset)
