"""Table 6.2, and files that match or do not match one of its videos."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest

from mixplug.data.walking_tours import LICENSE, TOURS, check, tour
from mixplug.video import VideoIndex

HOURS = 3600.0


def test_the_averages_of_the_table() -> None:
    tours = TOURS.values()
    assert len(TOURS) == 10 and LICENSE == "CC-BY"
    assert round(mean(t.kiloframes for t in tours), 1) == 153.2
    assert round(mean(t.minutes for t in tours), 1) == 82.8
    assert round(mean(t.shots for t in tours), 1) == 1.6
    assert round(mean(t.objects for t in tours), 1) == 38.5
    assert round(mean(t.classes for t in tours)) == 636
    assert [t.title for t in tours] == sorted(t.title for t in tours)
    assert [name for name, t in TOURS.items() if t.domain != "Urban"] == ["wildlife"]
    assert [name for name, t in TOURS.items() if t.valid is not None] == ["venice"]


def file(minutes: float, **changes: object) -> VideoIndex:
    """The index of a correct file."""
    index = VideoIndex(
        name="f.mp4", size=1, digest="", duration=minutes * 60, fps=59.94, width=3840, height=2160,
        frames=round(minutes * 60 * 59.94), codec="h264", complete=True, position=minutes * 60,
    )  # fmt: skip
    return replace(index, **changes)


def verdicts(name: str, index: VideoIndex) -> dict[str, str]:
    return {finding.subject: finding.verdict for finding in check(name, index)}


def test_a_correct_file_passes() -> None:
    for name, row in TOURS.items():
        cuts = tuple(60.0 * (n + 1) for n in range(row.shots))
        findings = check(name, file(row.minutes, cuts=cuts))
        assert len(findings) == 7
        assert {finding.verdict for finding in findings} == {"ok"}


def test_the_public_file_of_venice() -> None:
    """It lasts 3:40 h and is blank after 1:50 h."""
    index = file(220.0, bad=((1.5 * HOURS + 1200, 220 * 60.0, "blank"),))
    findings = {f.subject: f for f in check("venice", index)}
    assert findings["blank up to 1.83 h"].verdict == "ok"
    after = findings["blank after 1.83 h"]
    assert (after.wanted, after.found, after.verdict) == ("6600 s", "6600 s", "ok")
    # 110 minutes are usable; it is not known which 90 of them the thesis used
    usable = findings["usable"]
    assert (usable.wanted, usable.found) == ("90.0 minutes", "110.0 of 220.0 minutes")
    assert usable.verdict == "note"
    # a better file, with pictures to the end
    assert verdicts("venice", file(220.0))["blank after 1.83 h"] == "note"
    early = file(220.0, bad=((HOURS, 220 * 60.0, "blank"),))
    assert verdicts("venice", early)["blank up to 1.83 h"] == "wrong"
    assert verdicts("venice", early)["usable"] == "wrong"


@pytest.mark.parametrize(
    ("changes", "subject", "verdict"),
    [
        ({"duration": 63.0 * 60}, "usable", "wrong"),
        ({"duration": 63.5 * 60}, "usable", "ok"),
        ({"duration": 67.0 * 60}, "usable", "ok"),
        ({"duration": 68.0 * 60}, "usable", "note"),
        ({"frames": 117_000}, "frames", "ok"),
        ({"frames": 115_000}, "frames", "note"),
        ({"bad": ((0.0, 3.0, "blank"),)}, "blank", "note"),
        ({"bad": ((0.0, 300.0, "blank"),)}, "blank", "wrong"),
        ({"bad": ((9.0, 12.0, "corrupt"),)}, "damaged or missing", "note"),
        ({"bad": ((9.0, 12.0, "corrupt"),)}, "blank", "ok"),
        ({"bad": ((0.0, 300.0, "missing"),)}, "damaged or missing", "wrong"),
        ({"bad": ((0.0, 300.0, "missing"),)}, "usable", "wrong"),
        ({"width": 1920, "height": 1080}, "resolution", "note"),
        ({"fps": 25.0}, "frames per second", "note"),
        ({"cuts": (1.0,)}, "cuts", "ok"),
        ({"cuts": (1.0, 2.0)}, "cuts", "note"),
    ],
)
def test_notes_and_errors(changes: dict[str, object], subject: str, verdict: str) -> None:
    assert verdicts("zurich", file(64.0, **changes))[subject] == verdict


def test_invalid_checks() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'kuala-lumpur'.*Known tours: amsterdam, "):
        tour("Kuala Lumpur")
    with pytest.raises(ValueError, match=r"Unknown Walking Tour 'x'\. Known tours: "):
        check("x", file(10.0))
    with pytest.raises(ValueError, match=r"index of f\.mp4 is not complete"):
        check("zurich", file(10.0, complete=False))
