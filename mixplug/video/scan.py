"""One pass over a video that finds keyframes, cuts, lightness and unusable parts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixplug.video.findings import WARM, Findings, Settings
from mixplug.video.fingerprint import fingerprint
from mixplug.video.index import VideoIndex
from mixplug.video.pictures import FilePictures, FolderPictures, Pictures, Tick
from mixplug.video.spans import Span, merge


def scan(
    video: str | Path,
    fps: float | None = None,
    settings: Settings | None = None,
    force: bool = False,
    threads: int | None = None,
    every: float = 5.0,
    path: str | Path | None = None,
    tick: Tick | None = None,
) -> VideoIndex:
    """The index of a video; if there is none, it is created and saved.

    Results are saved every few seconds and when the scan is interrupted. The next call resumes
    there, and the final result is the same as without an interruption.

    Args:
        video: a file, or a folder of frames.
        fps: frames per second of a folder of frames.
        settings: settings of the scan; an index with other settings is created again.
        force: create the index again in any case.
        threads: number of threads of the decoder; None uses all cores.
        every: seconds between two saves.
        path: path of the index; None uses :meth:`VideoIndex.path_of`.
        tick: function that is called with seconds done, seconds in total, and the name of the step.

    Raises:
        ValueError: a missing or unreadable video.
    """
    video, settings = Path(video), settings or Settings()
    size, digest = fingerprint(video)
    path = VideoIndex.path_of(video) if path is None else Path(path)
    known = None if force else _known(path, video, settings, fps)
    if known is not None and known.complete:
        return known
    tick = tick or (lambda done, total, what: None)
    pictures = _pictures(video, fps, threads, tick)
    progress = None if known is None else known.progress
    findings = Findings.resumed(settings, progress) if progress else Findings(settings)
    metadata = {"name": video.name, "size": size, "digest": digest, "settings": settings.asdict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    job = _Scan(pictures, findings, {**metadata, **pictures.metadata}, path)
    try:
        job.run(every, tick)
    finally:
        pictures.close()
    index = job.index()
    index.save(path)
    return index


def _known(path: Path, video: Path, settings: Settings, fps: float | None) -> VideoIndex | None:
    """Result of an earlier scan of this video with these settings, or None."""
    try:
        index = VideoIndex.load(path)
    except ValueError:
        return None
    same = index.settings == settings.asdict() and index.fits(video)
    return index if same and (fps is None or fps == index.fps) else None


def _pictures(video: Path, fps: float | None, threads: int | None, tick: Tick) -> Pictures:
    if video.is_dir():
        if fps is None:
            raise ValueError(
                f"{video} is a folder of frames and needs fps, the frames per second; got None."
            )
        return FolderPictures(video, fps)
    if fps is not None:
        raise ValueError(
            f"fps is only for folders of frames, and {video} is a file; got fps={fps}."
        )
    return FilePictures(video, threads, tick)


@dataclass
class _Scan:
    """A running scan."""

    pictures: Pictures
    findings: Findings
    metadata: dict[str, Any]
    path: Path

    def run(self, every: float, tick: Tick) -> None:
        """Scan all frames that were not scanned yet, and save results regularly."""
        saved = time.monotonic()
        try:
            for picture in self.pictures.from_before(self.findings.last, WARM):
                self.findings.add(picture)
                tick(picture.time, self.metadata["duration"], "scanning frames")
                if time.monotonic() - saved >= every:
                    self._save()
                    saved = time.monotonic()
            tick(self.metadata["duration"], self.metadata["duration"], "scanning frames")
        except BaseException:  # most often the user's Ctrl-C
            self._save()
            raise

    def _save(self) -> None:
        position, progress = self.findings.last or 0.0, self.findings.progress()
        VideoIndex(**self.metadata, position=position, progress=progress).save(self.path)

    def index(self) -> VideoIndex:
        """The index with all results."""
        duration = self.metadata["duration"]
        self.findings.finish(duration)
        corrupt = merge(map(self.pictures.damaged_span, self.findings.damaged))
        blank = [(start, end) for start, end in self.findings.flat]
        bad = _with_reason(corrupt, "corrupt") + _with_reason(blank, "blank")
        return VideoIndex(
            **self.metadata,
            # damage changes the picture like a cut
            cuts=tuple(c for c in self.findings.cuts if not any(a <= c <= b for a, b in corrupt)),
            bad=tuple(sorted(bad + _with_reason(self.pictures.missing, "missing"))),
            lightness=tuple((second, value) for second, value in self.findings.lightness),
            complete=True,
            position=duration,
        )


def _with_reason(spans: list[Span], reason: str) -> list[tuple[float, float, str]]:
    return [(start, end, reason) for start, end in spans]
