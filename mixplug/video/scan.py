"""One pass over a video: its keyframes, cuts, lightness, and what cannot be used."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixplug.video.findings import WARM, Findings, Settings
from mixplug.video.fingerprint import fingerprint
from mixplug.video.index import VideoIndex
from mixplug.video.pictures import FilePictures, FolderPictures, Pictures, Tick
from mixplug.video.spans import Span, joined


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
    """The index of a video, which is made if there is none, and saved.

    What was found so far is saved every few seconds, and when the scan is interrupted; called
    again, it goes on from there, and finds what it would have found at a stretch.

    Args:
        video: a file, or a folder of frames.
        fps: frames per second of a folder of frames.
        settings: of the scan; an index that was made with others is made anew.
        force: make it anew in any case.
        threads: of the decoder; None is as many as there are cores.
        every: seconds between two saves.
        path: of the index; None is :meth:`VideoIndex.path_of`.
        tick: is called with seconds done, seconds in all, and with what.

    Raises:
        ValueError: no such video, or one that cannot be read.
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
    about = {"name": video.name, "size": size, "digest": digest, "settings": settings.asdict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    run = _Scan(pictures, findings, {**about, **pictures.about}, path)
    try:
        run.look(every, tick)
    finally:
        pictures.close()
    index = run.finished()
    index.save(path)
    return index


def _known(path: Path, video: Path, settings: Settings, fps: float | None) -> VideoIndex | None:
    """What an earlier scan has left, if it was one of this video with these settings."""
    try:
        index = VideoIndex.load(path)
    except ValueError:
        return None
    same = index.settings == settings.asdict() and index.fits(video)
    return index if same and (fps is None or fps == index.fps) else None


def _pictures(video: Path, fps: float | None, threads: int | None, tick: Tick) -> Pictures:
    if video.is_dir():
        if fps is None:
            raise ValueError(f"{video} needs fps, the frames per second of the folder.")
        return FolderPictures(video, fps)
    if fps is not None:
        raise ValueError(f"fps is for folders of frames; {video} has its own, got fps={fps}.")
    return FilePictures(video, threads, tick)


@dataclass
class _Scan:
    """A scan on its way."""

    pictures: Pictures
    findings: Findings
    about: dict[str, Any]
    path: Path

    def look(self, every: float, tick: Tick) -> None:
        """Look at all frames that were not seen yet, and save now and then what was found."""
        saved = time.monotonic()
        try:
            for picture in self.pictures.from_before(self.findings.last, WARM):
                self.findings.see(picture)
                tick(picture.time, self.about["duration"], "looking at frames")
                if time.monotonic() - saved >= every:
                    self._save()
                    saved = time.monotonic()
            tick(self.about["duration"], self.about["duration"], "looking at frames")
        except BaseException:  # a user's Ctrl-C above all
            self._save()
            raise

    def _save(self) -> None:
        position, progress = self.findings.last or 0.0, self.findings.progress()
        VideoIndex(**self.about, position=position, progress=progress).save(self.path)

    def finished(self) -> VideoIndex:
        """All that was found."""
        duration = self.about["duration"]
        self.findings.finish(duration)
        corrupt = joined(map(self.pictures.spoiled, self.findings.damaged))
        blank = [(start, end) for start, end in self.findings.flat]
        bad = _named(corrupt, "corrupt") + _named(blank, "blank")
        return VideoIndex(
            **self.about,
            # at damage pictures change as at a cut
            cuts=tuple(c for c in self.findings.cuts if not any(a <= c <= b for a, b in corrupt)),
            bad=tuple(sorted(bad + _named(self.pictures.missing, "missing"))),
            lightness=tuple((second, value) for second, value in self.findings.lightness),
            complete=True,
            position=duration,
        )


def _named(spans: list[Span], reason: str) -> list[tuple[float, float, str]]:
    return [(start, end, reason) for start, end in spans]
