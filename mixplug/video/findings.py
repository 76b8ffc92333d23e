"""Results of a scan, collected frame by frame, so that a scan can stop and resume anywhere.

Apart from the last few frames, the state consists of plain numbers, which are saved in the index.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mixplug.optional import optional
from mixplug.video.pictures import Picture

WARM = 8  # number of frames after which earlier frames no longer affect the detectors
_RATE = 25.0  # dummy frame rate for the detectors; this module maps frame numbers to times
_EXACT = 1e-9  # seconds


@dataclass(frozen=True)
class Settings:
    """Settings of a scan.

    Attributes:
        detector: detector of cuts from PySceneDetect, 'adaptive' or 'content', with its thresholds.
            The adaptive one compares a change with the changes around it, so a moving camera is not
            a cut.
        scene: shortest scene in seconds; a cut that follows another one sooner is ignored.
        flat: a frame is blank if the standard deviation of its green channel is below this, of 255.
        blank: shortest sequence of blank frames in seconds that is recorded.
    """

    detector: str = "adaptive"
    scene: float = 0.6
    flat: float = 2.0
    blank: float = 2.0

    def __post_init__(self) -> None:
        if self.detector not in _DETECTORS:
            raise ValueError(f"detector must be one of {tuple(_DETECTORS)}, got {self.detector!r}.")
        if min(self.scene, self.flat, self.blank) < 0:
            raise ValueError(
                f"A scan needs scene, flat and blank >= 0, got {self.scene}, {self.flat} and "
                f"{self.blank}."
            )

    def asdict(self) -> dict[str, Any]:
        """As a dict for JSON."""
        return asdict(self)


@dataclass
class Findings:
    """Results for all frames up to the current one.

    Attributes:
        settings: settings of the scan.
        last: time of the last frame; None before the first.
        cuts: times of the first frames of new scenes.
        flat: [start, end] of blank parts, or [start] for a part that has not ended yet.
        lightness: [time, L*] pairs.
        damaged: times of frames that could not be decoded.
    """

    settings: Settings
    last: float | None = None
    cuts: list[float] = field(default_factory=list)
    flat: list[list[float]] = field(default_factory=list)
    lightness: list[list[float]] = field(default_factory=list)
    damaged: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._detector = _DETECTORS[self.settings.detector]()
        self._timecode = optional("scenedetect", "video", "Finding cuts").FrameTimecode
        self._recent: deque[tuple[int, float]] = deque(maxlen=WARM)
        self._count = 0

    @classmethod
    def resumed(cls, settings: Settings, progress: Mapping[str, Any]) -> Findings:
        """Restore the state that :meth:`progress` returned."""
        copied = {key: _as_lists(value) for key, value in progress.items()}
        return cls(settings, **copied)

    def progress(self) -> dict[str, Any]:
        """The state for :meth:`resumed`; the next picture must be WARM frames before the last."""
        found = ("last", "cuts", "flat", "lightness", "damaged")
        return {key: _as_lists(getattr(self, key)) for key in found}

    def add(self, picture: Picture) -> None:
        """Add a frame; a frame that was added before an interruption only goes to the detector."""
        known = self.last is not None and picture.time <= self.last + _EXACT
        if picture.pixels is not None:
            cuts = self._detect(picture)
            if not known:
                self._record(picture, cuts)
        elif not known:
            self.damaged.append(picture.time)
        if not known:
            self.last = picture.time

    def _detect(self, picture: Picture) -> list[float]:
        self._recent.append((self._count, picture.time))
        timecode = self._timecode(self._count, _RATE)
        self._count += 1
        times = dict(self._recent)
        return [
            times[cut.frame_num] for cut in self._detector.process_frame(timecode, picture.pixels)
        ]

    def _record(self, picture: Picture, cuts: list[float]) -> None:
        for cut in cuts:
            if cut - (self.cuts[-1] if self.cuts else 0.0) >= self.settings.scene - _EXACT:
                self.cuts.append(cut)
        in_blank = self._in_blank()
        if picture.pixels[..., 1].std() < self.settings.flat:
            if not in_blank:
                self.flat.append([picture.time])
        elif in_blank:
            self._close(picture.time)
        if not self.lightness or _second(picture.time) > _second(self.lightness[-1][0]):
            self.lightness.append([picture.time, round(mean_lightness(picture.pixels), 2)])

    def _close(self, time: float) -> None:
        (start,) = self.flat.pop()
        if time - start >= self.settings.blank - _EXACT:
            self.flat.append([start, time])

    def _in_blank(self) -> bool:
        return bool(self.flat) and len(self.flat[-1]) == 1

    def finish(self, duration: float) -> None:
        """Close open parts after the last frame."""
        if self._in_blank():
            self._close(duration)


def mean_lightness(pixels: Any) -> float:
    """Mean CIELAB lightness L* of an image, in [0, 100].

        L* = 116 f(Y) - 16,   f(Y) = Y^(1/3),   or (841/108) Y + 4/29 where Y <= (6/29)^3

    Args:
        pixels: (h, w, 3) uint8 array, BGR with the sRGB curve; Y is relative luminance.
    """
    numpy = optional("numpy", "video", "Lightness")
    level = numpy.arange(256) / 255
    linear = numpy.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    luminance = linear[pixels] @ numpy.array([0.0722, 0.7152, 0.2126])
    small = luminance <= (6 / 29) ** 3
    root = numpy.where(small, luminance * 841 / 108 + 4 / 29, numpy.cbrt(luminance))
    return float(116 * root.mean() - 16)


def _second(time: float) -> int:
    return math.floor(time + _EXACT)


def _as_lists(value: Any) -> Any:
    """A copy in which tuples become lists."""
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _adaptive() -> Any:
    detectors = optional("scenedetect.detectors", "video", "Finding cuts")
    # with min_scene_len=0 it remembers five frames and no cuts
    return detectors.AdaptiveDetector(min_scene_len=0)


def _content() -> Any:
    detectors = optional("scenedetect.detectors", "video", "Finding cuts")
    return detectors.ContentDetector(min_scene_len=0)


_DETECTORS: Mapping[str, Callable[[], Any]] = {"adaptive": _adaptive, "content": _content}
