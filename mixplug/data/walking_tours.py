"""The ten Walking Tours of Table 6.2, and whether a file is one of them.

Nothing is downloaded. The videos are on YouTube under CC-BY; where, says the page of their authors.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from mixplug.video.index import VideoIndex
from mixplug.video.spans import Span, without

LICENSE = "CC-BY"
PAGE = "https://shashankvkt.github.io/dora"
WIDTH, HEIGHT, FPS = 3840, 2160, 60.0  # of all of them (6.3.1)
_MUCH = 0.01  # of a duration or a count, from which on a difference is one
_LONGER = 0.05  # of a duration; more makes it doubtful which part the thesis had


@dataclass(frozen=True)
class Tour:
    """A row of Table 6.2.

    Attributes:
        title: as printed.
        domain: 'Urban' or 'Wildlife'.
        kiloframes: number of frames, in thousands. Next to the duration these are 23 to 41 frames a
            second, less than the 60 of the files: the thesis does not say which it counted.
        minutes: duration.
        shots: shot changes, by PySceneDetect.
        objects: per frame on average, by Detic.
        classes: of ImageNet-21k, by Detic.
        valid: seconds up to which the file that is published has pictures; None is all.
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
    # users report that the file lasts 3:40 and is blank after 1:50 (DoRA_ICLR24#4)
    "venice": Tour("Venice", "Urban", 197.8, 90.0, 0, 39, 701, valid=110 * 60.0),
    "wildlife": Tour("Wildlife", "Wildlife", 85.7, 59.3, 1, 12, 374),
    "zurich": Tour("Zurich", "Urban", 117.0, 64.0, 1, 40, 572),
}


@dataclass(frozen=True)
class Finding:
    """One line of a check.

    Attributes:
        subject: what was compared.
        wanted: of the tour.
        found: in the file.
        verdict: 'ok'; 'note', a difference that does no harm; or 'wrong'.
    """

    subject: str
    wanted: str
    found: str
    verdict: str


def tour(name: str) -> Tour:
    """A tour by its name.

    Raises:
        ValueError: unknown; names the nearest.
    """
    if name in TOURS:
        return TOURS[name]
    near = difflib.get_close_matches(name.lower().replace(" ", "-"), TOURS, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"No Walking Tour is called {name!r}.{hint} There are: {', '.join(TOURS)}.")


def check(name: str, index: VideoIndex) -> list[Finding]:
    """Compare a file with a tour.

    Args:
        name: of the tour.
        index: of the file.

    Raises:
        ValueError: unknown tour, or an index that is not complete.
    """
    wanted = tour(name)
    if not index.complete:
        raise ValueError(
            f"The index of {index.name} is not complete. Go on with it: mixplug video index VIDEO"
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
    if found < wanted.minutes * (1 - _MUCH):
        verdict = "wrong"
    elif found > wanted.minutes * (1 + _LONGER):
        verdict = "note"
    all_of_it = f"{found:.1f} of {index.duration / 60:.1f} minutes"
    return Finding("usable", f"{wanted.minutes} minutes", all_of_it, verdict)


def _frames(wanted: Tour, index: VideoIndex) -> Finding:
    enough = index.frames >= wanted.kiloframes * 1000 * (1 - _MUCH)
    verdict = "ok" if enough else "note"  # as from a download with fewer frames per second
    return Finding(
        "frames", f"{wanted.kiloframes * 1000:,.0f} or more", f"{index.frames:,}", verdict
    )


def _blank(wanted: Tour, index: VideoIndex) -> Iterator[Finding]:
    blank = [(start, end) for start, end, reason in index.bad if reason == "blank"]
    end = index.duration if wanted.valid is None else min(wanted.valid, index.duration)
    within = _length(without(blank, [(end, index.duration)]))
    verdict = "ok" if not within else "note" if within <= _MUCH * end else "wrong"
    upto = "" if end == index.duration else f" up to {end / 3600:.2f} h"
    yield Finding(f"blank{upto}", "0 s", f"{within:.0f} s", verdict)
    if wanted.valid is not None and index.duration > wanted.valid:
        after = _length(without(blank, [(0.0, wanted.valid)]))
        rest = index.duration - wanted.valid
        verdict = "ok" if after >= rest * (1 - _MUCH) else "note"
        yield Finding(f"blank after {end / 3600:.2f} h", f"{rest:.0f} s", f"{after:.0f} s", verdict)


def _damage(index: VideoIndex) -> Finding:
    lost = _length([(start, end) for start, end, reason in index.bad if reason != "blank"])
    verdict = "ok" if not lost else "note" if lost <= _MUCH * index.duration else "wrong"
    return Finding("damaged or missing", "0 s", f"{lost:.0f} s", verdict)


def _number(subject: str, wanted: object, found: object) -> Finding:
    return Finding(subject, str(wanted), str(found), "ok" if wanted == found else "note")


def _rate(index: VideoIndex) -> Finding:
    verdict = "ok" if abs(index.fps - FPS) <= _MUCH * FPS else "note"  # 59.94 is called 60
    return Finding("frames per second", f"{FPS:.4g}", f"{index.fps:.4g}", verdict)


def _length(spans: list[Span]) -> float:
    return sum(end - start for start, end in spans)
