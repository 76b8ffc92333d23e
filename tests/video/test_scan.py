"""One pass over videos with known content."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenedetect
import torch
from PIL import Image
from video.films import (
    FPS,
    all_frames,
    damage_file,
    detected_damage,
    film,
    gray,
    packets,
    pan,
    shipped,
)

from mixplug.video import DecodeError, Settings, VideoIndex, open_reader, scan
from mixplug.video.findings import mean_lightness

# (frames, content): cuts at frames 40, 50, 60, 150, 200 and 230; black 60-150, gray 200-230
SHOTS = ((40, 1), (10, 2), (10, 3), (90, 0), (50, 4), (30, 119), (20, 5))


def shot(number: int) -> np.ndarray:
    for length, content in SHOTS:
        if number < length:
            return gray(content) if content in (0, 119) else pan(content, number)
        number -= length
    raise IndexError


COUNT = sum(length for length, _ in SHOTS)


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("shots") / "f.mp4", COUNT, shot, gop=30, open_gop=True)


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_a_scan_finds_the_known_content(shots: Path, tmp_path: Path, detector: str) -> None:
    index = scan(shots, settings=Settings(detector), path=tmp_path / "i.json")
    assert (index.duration, index.fps, index.frames) == (10.0, FPS, COUNT)
    assert (index.width, index.height, index.codec) == (112, 80, "h264")
    assert index.keyframes == tuple(n / FPS for n in range(0, COUNT, 30))
    # not at 50, because the cut before it is less than 0.6 s earlier
    assert index.cuts == (40 / FPS, 60 / FPS, 150 / FPS, 200 / FPS, 230 / FPS)
    assert index.bad == ((60 / FPS, 150 / FPS, "blank"),)  # the gray part is too short, 1.2 s
    assert [time for time, _ in index.lightness] == list(range(10))
    of = dict(index.lightness)
    assert of[3.0] == of[4.0] == of[5.0] == pytest.approx(0, abs=0.5)
    assert of[8.0] == of[9.0] == pytest.approx(50, abs=1)  # L* of sRGB 119
    assert index.complete and index.position == 10.0 and index.progress is None
    assert VideoIndex.load(tmp_path / "i.json") == index


def test_settings_define_cuts_and_blank_parts(shots: Path, tmp_path: Path) -> None:
    def with_(**settings: Any) -> VideoIndex:
        return scan(shots, settings=Settings(**settings), path=tmp_path / "i.json")

    assert with_(scene=0.4).cuts == (1.6, 2.0, 2.4, 6.0, 8.0, 9.2)
    assert with_(scene=0.41).cuts == (1.6, 2.4, 6.0, 8.0, 9.2)
    assert with_(scene=2.5).cuts == (6.0, 9.2)
    blank = [(8.0, 9.2, "blank"), (2.4, 6.0, "blank")]
    assert with_(blank=1.0).bad == tuple(sorted(blank))
    assert with_(blank=3.7).bad == ()
    assert with_(flat=0.0).bad == ()
    assert with_(flat=200.0).bad == ((0.0, 10.0, "blank"),)  # up to the end
    for settings, message in (
        ({"detector": "contents"}, r"one of \('adaptive', 'content'\), got 'contents'"),
        ({"blank": -1.0}, "needs scene, flat and blank >= 0, got 0.6, 2.0 and -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**settings)


def test_lightness_by_hand() -> None:
    def of(*pixel: int) -> float:
        return mean_lightness(np.array([[pixel]], np.uint8))

    assert of(0, 0, 0) == pytest.approx(0, abs=1e-9)
    assert of(255, 255, 255) == pytest.approx(100)
    # Y of the primaries is 0.2126, 0.7152 and 0.0722; pixels are BGR
    for pixel, y in (((0, 0, 255), 0.2126), ((0, 255, 0), 0.7152), ((255, 0, 0), 0.0722)):
        assert of(*pixel) == pytest.approx(116 * y ** (1 / 3) - 16)
    assert of(1, 1, 1) == pytest.approx(1 / 255 / 12.92 * (29 / 3) ** 3)  # the linear part
    both = np.array([[(0, 0, 0), (255, 255, 255)]], np.uint8)
    assert mean_lightness(both) == pytest.approx(50)  # the mean of L*, not of the light


class Stop(BaseException):
    """Acts like Ctrl-C."""


def stop_at(time: float) -> Callable[[float, float, str], None]:
    def tick(done: float, total: float, what: str) -> None:
        if what == "scanning frames" and time - 1e-9 < done < total:
            raise Stop

    return tick


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_an_interrupted_scan_gives_the_same_result(
    shots: Path, tmp_path: Path, detector: str
) -> None:
    """Stopped at frames around every event and at many others."""
    settings = Settings(detector, scene=0.0, blank=0.1)
    whole = scan(shots, settings=settings, path=tmp_path / "whole.json")
    near = [place + d for place in (40, 60, 150, 200, 230) for d in range(-3, 4)]
    for frame in [0, 1, 5, 29, 30, 31, 110, *near, COUNT - 1]:
        place = tmp_path / f"{frame}.json"
        with pytest.raises(Stop):
            scan(shots, settings=settings, path=place, tick=stop_at(frame / FPS))
        half = VideoIndex.load(place)
        assert not half.complete and half.position == frame / FPS
        assert scan(shots, settings=settings, path=place) == whole, frame
    place = tmp_path / "often.json"
    for frame in range(7, COUNT, 11):
        with pytest.raises(Stop):
            scan(shots, settings=settings, path=place, tick=stop_at(frame / FPS))
    assert scan(shots, settings=settings, path=place) == whole


def test_frames_are_not_scanned_twice(shots: Path, tmp_path: Path) -> None:
    place = tmp_path / "i.json"
    with pytest.raises(Stop):
        scan(shots, path=place, tick=stop_at(7.0))
    seen: list[float] = []
    scan(shots, path=place, tick=lambda done, total, what: seen.append(done))
    assert 5.9 <= seen[0] < 7.0  # the keyframe at 6 s, at least eight frames before 7 s
    assert seen == sorted(seen) and seen[-1] == 10.0
    del seen[:]
    again = scan(shots, path=place, tick=lambda done, total, what: seen.append(done))
    assert not seen and again == VideoIndex.load(place)
    scan(shots, path=place, force=True, tick=lambda done, total, what: seen.append(done))
    assert len(seen) >= COUNT
    del seen[:]
    other = Settings(scene=2.0)
    found = scan(shots, settings=other, path=place, tick=lambda *at: seen.append(at[0]))
    assert len(seen) >= COUNT and found.cuts != again.cuts


def test_a_killed_scan_resumes(shots: Path, tmp_path: Path) -> None:
    """No handler runs, so only the results saved on the way exist."""
    whole = scan(shots, path=tmp_path / "whole.json")
    code = (
        "import os, sys\n"
        "from mixplug.video.scan import scan\n"
        "def tick(done, total, what):\n"
        "    if what == 'scanning frames' and done >= 6.5: os._exit(9)\n"
        "scan(sys.argv[1], path=sys.argv[2], every=0.0, tick=tick)\n"
    )
    place = tmp_path / "i.json"
    run = subprocess.run([sys.executable, "-c", code, str(shots), str(place)], check=False)
    assert run.returncode == 9
    assert 6.0 <= VideoIndex.load(place).position < 6.5
    assert scan(shots, path=place) == whole
    assert sorted(file.name for file in tmp_path.iterdir()) == ["i.json", "whole.json"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("gop", [True, False])
@pytest.mark.parametrize("how", ["payload", "zeros"])
def test_frames_outside_damaged_parts_are_correct(
    tmp_path: Path, how: str, gop: bool, threads: int
) -> None:
    """Every frame outside the corrupt parts of the index can be read and is correct."""
    path = film(tmp_path / "f.mp4", 120, gop=20, open_gop=gop)
    times, frames = all_frames(path)
    places = [33, 34, 72, 119]
    if how == "payload":
        places[-1] = 113  # or later; damage in the last packets may go undetected
        places = [detected_damage(path, tmp_path / "g.mp4", near) for near in places]
    damaged = damage_file(path, tmp_path / "g.mp4", places, how)
    order = [packet.pts for packet in packets(path)]
    lost = [sorted(order).index(order[place]) for place in places]
    index = scan(damaged, threads=threads, path=tmp_path / "i.json")
    spans = [(a, b) for a, b, reason in index.bad if reason == "corrupt"]
    assert len(index.bad) == len(spans) == 3
    inside = [any(a <= time < b for a, b in spans) for time in times]
    assert all(inside[number] for number in lost)
    assert [end for _, end in spans] == pytest.approx([40 / FPS, 80 / FPS, 120 / FPS])
    assert sum(inside) <= 3 * 20
    reader = open_reader(damaged)
    for number, (time, bad) in enumerate(zip(times, inside, strict=True)):
        try:
            assert torch.equal(reader.read([time])[0], frames[number])
        except DecodeError:
            assert bad
    assert index.cuts == ()
    assert index.spans()[0][0] == 0.0


def test_a_truncated_file(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4", 100)
    found = packets(path)
    path.write_bytes(path.read_bytes()[: found[60].pos])
    end = float(max(packet.pts * packet.time_base for packet in found[:60])) + 0.04
    index = scan(path)
    assert index.bad == ((pytest.approx(end), 4.0, "missing"),) and index.duration == 4.0
    reader = open_reader(path)
    for start, end in index.spans():
        reader.read([start, (start + end) / 2, end - 0.001])
    with pytest.raises(DecodeError, match="the file has no packets there"):
        reader.read([3.0])


def test_irregular_frame_times(tmp_path: Path) -> None:
    """Times come from the frames, not from frame number and rate; the first frame is at 0."""
    when = [3000 + 40 * n + 700 * (n >= 45) + 7 * (n % 2) for n in range(90)]
    path = film(
        tmp_path / "f.mkv", 90, lambda n: pan(1 + (n >= 30) + (n >= 60), n), milliseconds=when
    )
    index = scan(path)
    assert index.cuts == pytest.approx([(when[30] - 3000) / 1000, (when[60] - 3000) / 1000])
    assert index.frames == 90 and index.bad == ()
    assert index.duration == pytest.approx((when[-1] - 3000) / 1000 + 0.04, abs=0.01)
    assert [int(time) for time, _ in index.lightness] == [0, 1, 2, 3, 4]


def test_a_folder_of_frames(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(COUNT):
        Image.fromarray(shot(number)).save(folder / f"{number}.png")
    (folder / "20.png").write_bytes(b"no image")
    index = scan(folder, fps=25)
    assert (index.duration, index.frames, index.codec, index.keyframes) == (
        10.0,
        COUNT,
        "images",
        (),
    )
    assert index.bad == ((20 / 25, 21 / 25, "corrupt"), (2.4, 6.0, "blank"))
    assert index.cuts == (1.6, 2.4, 6.0, 8.0, 9.2)
    assert VideoIndex.of(folder) == index
    place = tmp_path / "i.json"
    for frame in (3, 21, 61, 152, 231):
        with pytest.raises(Stop):
            scan(folder, fps=25, path=place, tick=stop_at(frame / 25))
    assert scan(folder, fps=25, path=place) == index
    assert scan(folder, fps=50, path=place).duration == 5.0  # another rate needs a new scan
    with pytest.raises(ValueError, match="needs fps, the frames per second; got None"):
        scan(folder, path=tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"fps is only for folders of frames.*got fps=25"):
        scan(shipped("bikes.mp4"), fps=25, path=place)


def test_large_films_are_reduced_in_size(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4", 60, lambda n: pan(1 + (n >= 30), n, 240, 640))
    index = scan(path)
    assert index.cuts == (30 / FPS,) and (index.width, index.height) == (640, 240)


def test_cuts_of_a_real_clip_equal_those_of_pyscenedetect(tmp_path: Path) -> None:
    path = shipped("bikes.mp4")
    index = scan(path, path=tmp_path / "i.json")
    scenes = scenedetect.detect(str(path), scenedetect.AdaptiveDetector(min_scene_len=15))
    expected = [start.seconds for start, _ in scenes[1:]]
    assert list(index.cuts) == pytest.approx(expected[: len(index.cuts)])
    assert len(index.cuts) >= len(expected) >= 4
    frames = torch.stack([f for f in all_frames(path)[1][::25]]).permute(0, 2, 3, 1).flip(-1)
    for (_, found), frame in zip(index.lightness, frames, strict=True):
        assert found == pytest.approx(mean_lightness(frame.numpy()), abs=0.5)


def test_files_that_cannot_be_scanned(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no file or folder"):
        scan(tmp_path / "no.mp4")
    (tmp_path / "text.mp4").write_text("hello " * 1000)
    with pytest.raises(ValueError, match="cannot be opened as a video"):
        scan(tmp_path / "text.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["text.mp4"]
