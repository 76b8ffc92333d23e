"""Find videos and their indices, and compute where clips may start."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixplug.data.shipped import shipped_clip
from mixplug.image_files import files_in
from mixplug.video import VideoIndex, open_reader
from mixplug.video.fingerprint import frame_files
from mixplug.video.spans import Span

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")
INDEX_MODES = ("require", "build", "ignore")
_SHIPPED = "shipped:"
_MARGIN = 1e-6  # seconds before a cut without frames of a clip, because readers round times

Videos = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find_videos(video: Videos) -> list[Path]:
    """Paths of the given videos.

    Args:
        video: a file; a folder of videos, subfolders included; a folder with the frames of one
            video; 'shipped:NAME', see :func:`mixplug.data.shipped.shipped_clip`; or a sequence of
            these.

    Raises:
        ValueError: a missing path, or a folder with neither videos nor images.
    """
    if isinstance(video, (str, os.PathLike)):
        return _find(video)
    found = [path for one in video for path in _find(one)]
    if not found:
        raise ValueError("VideoClips needs at least one video, got 0.")
    return found


def _find(video: str | os.PathLike[str]) -> list[Path]:
    if isinstance(video, str) and video.startswith(_SHIPPED):
        return [shipped_clip(video.removeprefix(_SHIPPED))]
    path = Path(video)
    if not path.exists():
        raise ValueError(f"There is no file or folder {path}.")
    if path.is_file():
        return [path]
    videos = sorted(files_in(path, VIDEO_SUFFIXES, nested=True))
    if videos:
        return videos
    if frame_files(path):
        return [path]
    raise ValueError(
        f"{path} has neither videos ({', '.join(VIDEO_SUFFIXES)}) nor frames, which are images "
        f"directly in the folder."
    )


def index_of(path: Path, mode: str, backend: str = "auto", fps: float | None = None) -> VideoIndex:
    """The index of a video.

    Args:
        path: path of the file or folder.
        mode: 'require' reads the index that ``mixplug video index`` wrote; 'build' creates a
            missing index; 'ignore' uses no index, so cuts and damage are unknown and the whole
            video is used.
        backend: backend of the reader, for 'ignore'.
        fps: frames per second of a folder of frames without an index.

    Raises:
        ValueError: an unknown mode, or a missing, incomplete or outdated index. The message gives
            the command that creates it.
    """
    if mode not in INDEX_MODES:
        raise ValueError(f"index must be one of {INDEX_MODES}, got {mode!r}.")
    if mode == "require":
        return VideoIndex.of(path)
    if mode == "build":
        from mixplug.video.scan import scan

        return scan(path, fps=fps if path.is_dir() else None)
    backend = "auto" if path.is_dir() else backend
    with open_reader(path, backend, fps if path.is_dir() else None) as reader:
        height, width = reader.size
        frames = round(reader.duration * reader.fps)
        return VideoIndex(
            path.name, 0, "", reader.duration, reader.fps, width, height, frames, "unknown"
        )


def reach(frames: int, interval: float) -> float:
    """Seconds from the first frame of a clip to its last frame."""
    return (frames - 1) * interval


def usable_starts(
    indices: Mapping[Path, VideoIndex],
    frames: int,
    interval: float,
    across_cuts: bool = False,
    blanks: bool = False,
) -> list[tuple[Path, float, float]]:
    """Intervals of time (video, first, last) in which a clip may start.

    Videos without such an interval cause a warning.

    Raises:
        ValueError: no video has such an interval. The message gives the cause for the first video
            and the settings that would help.
    """
    length = reach(frames, interval)
    starts = [
        (path, first, last)
        for path, index in indices.items()
        for first, last in _starts(index, length, across_cuts, blanks)
    ]
    unused = [path for path in indices if path not in {path for path, _, _ in starts}]
    if unused:
        clip = f"{frames} frames, {interval:g} s apart,"
        reason = _explain(unused[0], indices[unused[0]], clip, length, across_cuts, blanks)
        if not starts:
            raise ValueError(reason)
        warnings.warn(
            f"{len(unused)} of {len(indices)} videos are not used. The first: {reason}",
            stacklevel=3,
        )
    return starts


def _starts(index: VideoIndex, length: float, across_cuts: bool, blanks: bool) -> list[Span]:
    spans = index.spans(across_cuts=across_cuts, blanks=blanks)
    ends = [(a, b - length - _MARGIN) for a, b in spans]
    return [(first, last) for first, last in ends if first < last]


def _explain(
    path: Path, index: VideoIndex, clip: str, length: float, across_cuts: bool, blanks: bool
) -> str:
    """Why no clip fits into a video, and which settings would help."""
    if index.duration <= length + _MARGIN:
        return (
            f"{path} lasts {index.duration:.3g} s, but a clip of {clip} needs more than "
            f"{length:.3g} s. Reduce frames or interval, or use a longer video."
        )
    spans = index.spans(across_cuts=across_cuts, blanks=blanks)
    longest = max((b - a for a, b in spans), default=0.0)
    cause = (
        f"{path} has no room for a clip of {clip} which needs more than {length:.3g} s. The "
        f"longest of its {len(spans)} usable spans (without forbidden cuts, damage and blank "
        f"frames) lasts {longest:.3g} s."
    )
    for relaxed in ((True, blanks), (across_cuts, True), (True, True)):
        if _starts(index, length, *relaxed):
            options = zip(("across_cuts", "blanks"), relaxed, (across_cuts, blanks), strict=True)
            change = " and ".join(f"{name}=True" for name, new, old in options if new > old)
            return f"{cause} Set {change}, or reduce frames or interval."
    return f"{cause} Reduce frames or interval."
