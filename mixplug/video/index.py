"""Results of a scan of a video, stored as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mixplug.video.fingerprint import fingerprint
from mixplug.video.spans import Span, split, subtract

VERSION = 1
SUFFIX = ".index.json"
REASONS = ("corrupt", "missing", "blank")  # reasons of bad spans
_TOLERANCE = 1e-9  # seconds; two times that are closer are equal


@dataclass(frozen=True)
class VideoIndex:
    """Properties of a video. Times are in seconds after the first frame.

    Attributes:
        name: name of the file or folder.
        size: size in bytes.
        digest: digest of samples of the file, to identify it.
        duration: duration in seconds.
        fps: mean number of frames per second.
        width: width of a displayed frame in pixels.
        height: height of a displayed frame in pixels.
        frames: number of frames.
        codec: FFmpeg's name of the codec, or 'images'.
        keyframes: times at which decoding can start; empty for a folder of frames, where it can
            start anywhere.
        cuts: times of the first frames of new scenes.
        bad: (start, end, reason) of unusable parts: 'corrupt', which lasts to the next keyframe;
            'missing', where the file is shorter than its header states; 'blank', frames of almost
            one color.
        lightness: (time, L*): mean CIELAB lightness, in [0, 100], of one frame per second.
        settings: settings of the scan.
        complete: whether the scan reached the end.
        position: time up to which the video was scanned.
        progress: state from which an incomplete scan resumes.
    """

    name: str
    size: int
    digest: str
    duration: float
    fps: float
    width: int
    height: int
    frames: int
    codec: str
    keyframes: tuple[float, ...] = ()
    cuts: tuple[float, ...] = ()
    bad: tuple[tuple[float, float, str], ...] = ()
    lightness: tuple[tuple[float, float], ...] = ()
    settings: Mapping[str, Any] | None = None
    complete: bool = False
    position: float = 0.0
    progress: Mapping[str, Any] | None = None

    def spans(
        self, across_cuts: bool = False, blanks: bool = False, least: float = 0.0
    ) -> list[Span]:
        """Usable parts [start, end) of the video, in order.

        Args:
            across_cuts: whether a part may contain a cut.
            blanks: whether a part may contain blank frames.
            least: shortest part in seconds. A clip of T frames, Δ apart, needs more than (T - 1) Δ.
        """
        whole = [(0.0, self.duration)]
        parts = whole if across_cuts else split(whole, self.cuts)
        holes = [(a, b) for a, b, reason in self.bad if reason != "blank" or not blanks]
        return [(a, b) for a, b in subtract(parts, holes) if b - a >= max(least, _TOLERANCE)]

    def save(self, path: str | Path) -> None:
        """Write as JSON; a concurrent reader sees either the old or the new file."""
        path = Path(path)
        data = {"version": VERSION, **asdict(self)}
        if self.complete:
            del data["progress"]
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(data, separators=(",", ":")), encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> VideoIndex:
        """Read a file that :meth:`save` wrote.

        Raises:
            ValueError: a missing file, a file that is not an index, or an index of another version.
        """
        path = Path(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = data.pop("version")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not the index of a video ({type(error).__name__})."
            ) from error
        known = {field.name for field in fields(cls)}
        if version != VERSION or not known >= data.keys():
            raise ValueError(
                f"{path} is an index of version {version!r}, but this mixplug reads version "
                f"{VERSION}. To create it again, run: mixplug video index --force VIDEO"
            )
        try:
            return cls(**{key: _as_tuples(value) for key, value in data.items()})
        except TypeError as error:
            raise ValueError(f"{path} is not the index of a video: {error}.") from error

    @classmethod
    def path_of(cls, video: str | Path) -> Path:
        """Path of a video's index: beside the video, or in a cache if that folder is not writable.

        The cache is ``$XDG_CACHE_HOME/mixplug/video`` or ``~/.cache/mixplug/video``. If there is an
        index beside the video, it is used first.
        """
        video = Path(video).absolute()
        beside = video.with_name(video.name + SUFFIX)
        if beside.exists() or os.access(video.parent, os.W_OK):
            return beside
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        size, digest = fingerprint(video)
        return cache / "mixplug" / "video" / f"{video.name}.{size}.{digest[:12]}{SUFFIX}"

    @classmethod
    def of(cls, video: str | Path) -> VideoIndex:
        """The complete index of a video that was scanned before.

        Raises:
            ValueError: there is no index, it is not complete, or the video has changed since. The
                message gives the command that creates it.
        """
        video = Path(video)
        path = cls.path_of(video)
        command = f"mixplug video index {video}"
        if not video.exists():
            raise ValueError(f"There is no file or folder {video}.")
        if not path.exists():
            raise ValueError(f"{video} has no index {path}. To create it, run: {command}")
        index = cls.load(path)
        if not index.fits(video):
            raise ValueError(
                f"{path} belongs to another version of {video.name}. To create it again, run: "
                f"{command}"
            )
        if not index.complete:
            raise ValueError(
                f"{path} ends at {index.position:.0f} s of {index.duration:.0f} s because the scan "
                f"was interrupted. To resume it, run: {command}"
            )
        return index

    def fits(self, video: str | Path) -> bool:
        """Whether a video is the one that was scanned; its name may have changed."""
        return (self.size, self.digest) == fingerprint(Path(video))


def _as_tuples(value: Any) -> Any:
    """Convert lists to tuples at all levels, but not inside mappings."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
