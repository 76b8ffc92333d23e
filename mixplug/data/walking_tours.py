"""The ten Walking Tours (Table 6.2), and a check whether a file is one of them.

Nothing is downloaded. The videos are on YouTube under CC-BY; the authors' page :data:`PAGE` links
to them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from mixplug.renamed import old_names
from mixplug.video.index import VideoIndex
from mixplug.video.spans import Span, subtract

LICENSE = "CC-BY"
PAGE = "https://shashankvkt.github.io/dora"
WIDTH, HEIGHT, FPS = 3840, 2160, 60.0  # the same for all tours (6.3.1)
_TOLERANCE = 0.01  # share of a duration or count up to which a difference is ignored
_LONGER = 0.05  # a file longer by this share may not show the part that the thesis used


@dataclass(frozen=True)
class Tour:
    """A row of Table 6.2.

    Attributes:
        title: name as printed.
        domain: 'Urban' or 'Wildlife'.
        kiloframes: number of frames in thousands. With the duration, this gives 23 to 41 frames per
            second, less than the 60 of the files. The thesis does not say which frames it counted.
        minutes: duration.
        shots: number of shot changes, found by PySceneDetect.
        objects: number of objects per frame on average, found by Detic.
        classes: number of classes of ImageNet-21k, found by Detic.
        valid: seconds from the start that have pictures in the published file; None means all.
    """

    title: str
    domain: str
    kiloframes: float
    minutes: float
    shots: int
    objects: int
    classes: int
    valid: float | None = None


TOURS = {
    "amsterdam": Tour("Amsterdam", "Urban", 147.4, 72.6, 0, 48, 684),
    "bangkok": Tour("Bangkok", "Urban", 314.7, 153.0, 12, 44, 703),
    "chiang-mai": Tour("Chiang Mai", "Urban", 122.2, 87.5, 2, 40, 711),
    "istanbul": Tour("Istanbul", "Urban", 122.4, 82.8, 0, 42, 604),
    "kuala-lumpur": Tour("Kuala Lumpur", "Urban", 131.1, 77.2, 0, 39, 689),
    "singapore": Tour("Singapore", "Urban", 174.0, 71.0, 0, 49, 732),
    "stockholm": Tour("Stockholm", "Urban", 119.7, 70.4, 0, 32, 590),
    # Users report that the file lasts 3:40 h and is blank after 1:50 h (DoRA_ICLR24#4).
    "venice": Tour("Venice", "Urban", 197.8, 90.0, 0, 39, 701, valid=110 * 60.0),
    "wildlife": Tour("Wildlife", "Wildlife", 85.7, 59.3, 1, 12, 374),
    "zurich": Tour("Zurich", "Urban", 117.0, 64.0, 1, 40, 572),
}


@dataclass(frozen=True)
class Finding:
    """One line of a check.

    Attributes:
        subject: quantity that was compared.
        wanted: value of the tour.
        found: value of the file.
        verdict: 'ok'; 'note' for a harmless difference; or 'wrong'.
    """

    subject: str
    wanted: str
    found: str
    verdict: str


def tour(name: str) -> Tour:
    """The tour with a name.

    Raises:
        ValueError: an unknown name; the message suggests the most similar known name.
    """
    if name in TOURS:
        return TOURS[name]
    near = difflib.get_close_matches(name.lower().replace(" ", "-"), TOURS, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown Walking Tour {name!r}.{hint} Known tours: {', '.join(TOURS)}.")


def check(name: str, index: VideoIndex) -> list[Finding]:
    """Compare a file with a tour.

    Args:
        name: name of the tour.
        index: index of the file.

    Raises:
        ValueError: an unknown tour, or an incomplete index.
    """
    wanted = tour(name)
    if not index.complete:
        raise ValueError(
            f"The index of {index.name} is not complete. To complete it, run: mixplug video index "
            f"VIDEO"
        )
    return [
        _duration(wanted, index),
        _frames(wanted, index),
        *_blank(wanted, index),
        _damage(index),
        _number("cuts", wanted.shots, len(index.cuts)),
        _number("resolution", f"{WIDTH} x {HEIGHT}", f"{index.width} x {index.height}"),
        _rate(index),
    ]


def _duration(wanted: Tour, index: VideoIndex) -> Finding:
    found = _length(index.spans(across_cuts=True)) / 60
    verdict = "ok"
    if found < wanted.minutes * (1 - _TOLERANCE):
        verdict = "wrong"
    elif found > wanted.minutes * (1 + _LONGER):
        verdict = "note"
    usable = f"{found:.1f} of {index.duration / 60:.1f} minutes"
    return Finding("usable", f"{wanted.minutes} minutes", usable, verdict)


def _frames(wanted: Tour, index: VideoIndex) -> Finding:
    enough = index.frames >= wanted.kiloframes * 1000 * (1 - _TOLERANCE)
    verdict = "ok" if enough else "note"  # the download may have fewer frames per second
    return Finding(
        "frames", f"{wanted.kiloframes * 1000:,.0f} or more", f"{index.frames:,}", verdict
    )


def _blank(wanted: Tour, index: VideoIndex) -> Iterator[Finding]:
    blank = [(start, end) for start, end, reason in index.bad if reason == "blank"]
    end = index.duration if wanted.valid is None else min(wanted.valid, index.duration)
    within = _length(subtract(blank, [(end, index.duration)]))
    verdict = "ok" if not within else "note" if within <= _TOLERANCE * end else "wrong"
    upto = "" if end == index.duration else f" up to {end / 3600:.2f} h"
    yield Finding(f"blank{upto}", "0 s", f"{within:.0f} s", verdict)
    if wanted.valid is not None and index.duration > wanted.valid:
        after = _length(subtract(blank, [(0.0, wanted.valid)]))
        rest = index.duration - wanted.valid
        verdict = "ok" if after >= rest * (1 - _TOLERANCE) else "note"
        yield Finding(f"blank after {end / 3600:.2f} h", f"{rest:.0f} s", f"{after:.0f} s", verdict)


def _damage(index: VideoIndex) -> Finding:
    lost = _length([(start, end) for start, end, reason in index.bad if reason != "blank"])
    verdict = "ok" if not lost else "note" if lost <= _TOLERANCE * index.duration else "wrong"
    return Finding("damaged or missing", "0 s", f"{lost:.0f} s", verdict)


def _number(subject: str, wanted: object, found: object) -> Finding:
    return Finding(subject, str(wanted), str(found), "ok" if wanted == found else "note")


def _rate(index: VideoIndex) -> Finding:
    verdict = "ok" if abs(index.fps - FPS) <= _TOLERANCE * FPS else "note"  # 59.94 counts as 60
    return Finding("frames per second", f"{FPS:.4g}", f"{index.fps:.4g}", verdict)


def _length(spans: list[Span]) -> float:
    return sum(end - start for start, end in spans)


__getattr__ = old_names(__name__)
