"""Which videos there are, what is known of them, and where clips may be taken."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixplug.data.shipped import shipped_clip
from mixplug.video import VideoIndex, open_reader
from mixplug.video.fingerprint import IMAGE_SUFFIXES
from mixplug.video.spans import Span

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")
INDEX_MODES = ("require", "build", "ignore")
_SHIPPED = "shipped:"
_MARGIN = 1e-6  # seconds before a cut that no frame is taken from: readers round times

Videos = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find_videos(video: Videos) -> list[Path]:
    """The videos that are meant.

    Args:
        video: a file; a folder of videos, also in folders of its own; a folder of frames;
            'shipped:NAME', see :func:`mixplug.data.shipped.shipped_clip`; or several of these.

    Raises:
        ValueError: something that is not there, or a folder with neither videos nor images.
    """
    if isinstance(video, (str, os.PathLike)):
        return _found(video)
    found = [path for one in video for path in _found(one)]
    if not found:
        raise ValueError("VideoClips needs one video at least, got none.")
    return found


def _found(video: str | os.PathLike[str]) -> list[Path]:
    if isinstance(video, str) and video.startswith(_SHIPPED):
        return [shipped_clip(video.removeprefix(_SHIPPED))]
    path = Path(video)
    if not path.exists():
        raise ValueError(f"There is no video {path}.")
    if path.is_file():
        return [path]
    inside = sorted(p for p in path.rglob("*") if not p.name.startswith("."))
    videos = [p for p in inside if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    if videos:
        return videos
    if any(p.parent == path and p.suffix.lower() in IMAGE_SUFFIXES for p in inside):
        return [path]
    raise ValueError(
        f"{path} has no videos ({', '.join(VIDEO_SUFFIXES)}), and no frames: images in the folder "
        f"itself."
    )


def index_of(path: Path, mode: str, backend: str = "auto", fps: float | None = None) -> VideoIndex:
    """What is known of a video.

    Args:
        path: of the file or folder.
        mode: 'require' takes the index that ``mixplug video index`` has made, 'build' makes it
            where there is none, and 'ignore' takes the whole video as it is: cuts and damage are
            not known.
        backend: of the reader, for 'ignore'.
        fps: frames per second of a folder of frames, where there is no index.

    Raises:
        ValueError: another mode; or no index that is complete and fits, in which case it says the
            command that makes one.
    """
    if mode not in INDEX_MODES:
        raise ValueError(f"index is one of {INDEX_MODES}, got {mode!r}.")
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
    """Seconds from the first frame of a clip to its last."""
    return (frames - 1) * interval


def usable_starts(
    given: Mapping[Path, VideoIndex],
    frames: int,
    interval: float,
    across_cuts: bool = False,
    blanks: bool = False,
) -> list[tuple[Path, float, float]]:
    """Between which times, (video, first, last), a clip may start; warns of videos without any.

    Raises:
        ValueError: no video has any; it says why the first one has none, and what would help.
    """
    length = reach(frames, interval)
    starts = [
        (path, first, last)
        for path, index in given.items()
        for first, last in _starts(index, length, across_cuts, blanks)
    ]
    unused = [path for path in given if path not in {path for path, _, _ in starts}]
    if unused:
        clip = f"{frames} frames, {interval:g} s apart,"
        reason = _why_none(unused[0], given[unused[0]], clip, length, across_cuts, blanks)
        if not starts:
            raise ValueError(reason)
        warnings.warn(
            f"{len(unused)} of {len(given)} videos are not used, the first: {reason}", stacklevel=3
        )
    return starts


def _starts(index: VideoIndex, length: float, across_cuts: bool, blanks: bool) -> list[Span]:
    spans = index.spans(across_cuts=across_cuts, blanks=blanks)
    ends = [(a, b - length - _MARGIN) for a, b in spans]
    return [(first, last) for first, last in ends if first < last]


def _why_none(
    path: Path, index: VideoIndex, clip: str, length: float, across_cuts: bool, blanks: bool
) -> str:
    if index.duration <= length + _MARGIN:
        return (
            f"{path} lasts {index.duration:.3g} s, but a clip of {clip} needs more than "
            f"{length:.3g} s. Set frames or interval lower, or take a longer video."
        )
    spans = index.spans(across_cuts=across_cuts, blanks=blanks)
    longest = max((b - a for a, b in spans), default=0.0)
    said = (
        f"{path} has no place for a clip of {clip} which needs more than {length:.3g} s: the "
        f"longest of {len(spans)} spans without cuts, damage and blank frames that are not allowed "
        f"lasts {longest:.3g} s. Set "
    )
    for more in ((True, blanks), (across_cuts, True), (True, True)):
        if _starts(index, length, *more):
            given = zip(("across_cuts", "blanks"), more, (across_cuts, blanks), strict=True)
            options = " and ".join(f"{name}=True" for name, new, old in given if new > old)
            return f"{said}{options}, or frames or interval lower."
    return f"{said}frames or interval lower."
