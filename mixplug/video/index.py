"""What one pass over a video finds, kept as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mixplug.video.fingerprint import fingerprint
from mixplug.video.spans import Span, split, without

VERSION = 1
SUFFIX = ".index.json"
REASONS = ("corrupt", "missing", "blank")  # of bad spans
_UNSURE = 1e-9  # seconds; two times that are nearer are the same one


@dataclass(frozen=True)
class VideoIndex:
    """What is known of a video. Times are in seconds after its first frame.

    Attributes:
        name: of the file or folder.
        size: in bytes.
        digest: of samples of the file, by which it is known again.
        duration: how long it lasts.
        fps: mean frames per second.
        width: of a frame as it is shown, in pixels.
        height: of a frame as it is shown.
        frames: how many there are.
        codec: as FFmpeg names it, or 'images'.
        keyframes: when decoding can start; none for a folder of frames, where it can everywhere.
        cuts: when the first frame of another scene is shown.
        bad: (start, end, reason) of what cannot be used: 'corrupt', which lasts to the next
            keyframe; 'missing', where a file promises more than it has; 'blank', frames of almost
            one color.
        lightness: (time, L*), the mean CIELAB lightness of a frame in each second, in [0, 100].
        settings: of the scan.
        complete: whether the scan came to the end.
        position: up to where it came.
        progress: what an unfinished scan needs to go on.
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
        """Stretches [start, end) from which a clip may be taken, in order.

        Args:
            across_cuts: whether a clip may have a cut in it.
            blanks: whether it may have blank frames.
            least: seconds; shorter stretches are left out. A clip of T frames, Δ apart, needs more
                than (T - 1) Δ.
        """
        whole = [(0.0, self.duration)]
        parts = whole if across_cuts else split(whole, self.cuts)
        holes = [(a, b) for a, b, reason in self.bad if reason != "blank" or not blanks]
        return [(a, b) for a, b in without(parts, holes) if b - a >= max(least, _UNSURE)]

    def save(self, path: str | Path) -> None:
        """Write as JSON; who reads meanwhile sees the old one or the new one."""
        path = Path(path)
        data = {"version": VERSION, **asdict(self)}
        if self.complete:
            del data["progress"]
        beside = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            beside.write_text(json.dumps(data, separators=(",", ":")), encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> VideoIndex:
        """Read what :meth:`save` has written.

        Raises:
            ValueError: no such file, no index, or one of another version.
        """
        path = Path(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = data.pop("version")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no index of a video ({type(error).__name__}).") from error
        known = {field.name for field in fields(cls)}
        if version != VERSION or not known >= data.keys():
            raise ValueError(
                f"{path} is an index of version {version!r}, this mixplug reads {VERSION}. "
                f"Make it anew: mixplug video index --force VIDEO"
            )
        try:
            return cls(**{key: _frozen(value) for key, value in data.items()})
        except TypeError as error:
            raise ValueError(f"{path} is no index of a video: {error}.") from error

    @classmethod
    def path_of(cls, video: str | Path) -> Path:
        """Where the index of a video is: beside it, or in a cache where that is not writable.

        The cache is ``$XDG_CACHE_HOME/mixplug/video`` or ``~/.cache/mixplug/video``; an index that
        lies beside the video comes first.
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
            ValueError: there is none, it is not complete, or the video has changed since; says the
                command that makes one.
        """
        video = Path(video)
        path = cls.path_of(video)
        command = f"mixplug video index {video}"
        if not video.exists():
            raise ValueError(f"There is no video {video}.")
        if not path.exists():
            raise ValueError(f"{video} has no index {path}. Make it: {command}")
        index = cls.load(path)
        if not index.fits(video):
            raise ValueError(
                f"{path} is the index of another {video.name}. Make it anew: {command}"
            )
        if not index.complete:
            raise ValueError(
                f"{path} ends at {index.position:.0f} s of {index.duration:.0f} s, its scan was "
                f"stopped. Go on with it: {command}"
            )
        return index

    def fits(self, video: str | Path) -> bool:
        """Whether a video is the one that was scanned, whatever it is called now."""
        return (self.size, self.digest) == fingerprint(Path(video))


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down; what is in a mapping stays."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
