"""The index of a video: its spans and its file."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mixplug.video import VideoIndex
from mixplug.video.fingerprint import fingerprint, frame_files
from mixplug.video.spans import merge, split, subtract


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "walk.mp4"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


def index_of(video: Path) -> VideoIndex:
    size, digest = fingerprint(video)
    return VideoIndex(
        name=video.name, size=size, digest=digest, duration=100.0, fps=25.0, width=64, height=48,
        frames=2500, codec="h264", keyframes=(0.0, 2.0), cuts=(10.0, 40.0, 41.0),
        bad=((20.0, 25.0, "blank"), (39.5, 40.5, "corrupt"), (99.0, 100.0, "missing")),
        lightness=((0.0, 50.25), (1.0, 51.0)), settings={"detector": "adaptive"}, complete=True,
        position=100.0,
    )  # fmt: skip


def test_spans_exclude_bad_parts_and_cuts(video: Path) -> None:
    index = index_of(video)
    assert index.spans() == [
        (0.0, 10.0), (10.0, 20.0), (25.0, 39.5), (40.5, 41.0), (41.0, 99.0)
    ]  # fmt: skip
    assert index.spans(across_cuts=True) == [(0.0, 20.0), (25.0, 39.5), (40.5, 99.0)]
    assert index.spans(blanks=True) == [(0.0, 10.0), (10.0, 39.5), (40.5, 41.0), (41.0, 99.0)]
    assert index.spans(across_cuts=True, blanks=True) == [(0.0, 39.5), (40.5, 99.0)]
    assert index.spans(least=10.0) == [(0.0, 10.0), (10.0, 20.0), (25.0, 39.5), (41.0, 99.0)]
    assert replace(index, bad=((0.0, 100.0, "corrupt"),)).spans() == []
    assert replace(index, bad=(), cuts=()).spans() == [(0.0, 100.0)]
    assert replace(index, bad=(), cuts=(0.0, 100.0, 130.0)).spans() == [(0.0, 100.0)]


def test_spans_second_by_second() -> None:
    """Random spans, compared with a set of whole seconds."""
    draw = random.Random(0)
    for _ in range(200):
        holes = [(a, a + draw.randint(0, 9)) for a in (draw.randint(0, 40) for _ in range(5))]
        cuts = [draw.randint(0, 50) for _ in range(4)]
        parts = split(subtract([(0, 50)], holes), cuts)
        seconds = {s for a, b in parts for s in range(a, b)}
        assert seconds == set(range(50)) - {s for a, b in holes for s in range(a, b)}
        assert sum(b - a for a, b in parts) == len(seconds)  # no overlaps
        assert not any(a < cut < b for a, b in parts for cut in cuts)
        merged = merge(holes)
        assert {s for a, b in merged for s in range(a, b)} == {
            s for a, b in holes for s in range(a, b)
        }
        assert all(b < c for (_, b), (c, _) in itertools.pairwise(merged))
    assert merge([(0, 1), (3, 4), (9, 10)], gap=2) == [(0, 4), (9, 10)]


def test_an_index_survives_saving_and_loading(video: Path, tmp_path: Path) -> None:
    index = index_of(video)
    index.save(VideoIndex.path_of(video))
    assert VideoIndex.path_of(video) == tmp_path / "walk.mp4.index.json"
    assert VideoIndex.of(video) == VideoIndex.of(str(video)) == index
    assert not list(tmp_path.glob("*.part"))
    assert json.loads(VideoIndex.path_of(video).read_text())["version"] == 1
    assert VideoIndex.of(video).spans() == index.spans()


def test_missing_incomplete_or_outdated_indices(video: Path, tmp_path: Path) -> None:
    place = VideoIndex.path_of(video)
    command = f"mixplug video index {video}"
    for path, message in (
        (tmp_path / "no.mp4", "There is no file or folder"),
        (video, rf"has no index .*walk\.mp4\.index\.json\. To create it, run: {command}"),
    ):
        with pytest.raises(ValueError, match=message):
            VideoIndex.of(path)
    index = index_of(video)
    replace(index, complete=False, position=42.0, progress={"last": 42.0}).save(place)
    with pytest.raises(
        ValueError, match=rf"ends at 42 s of 100 s because.*To resume it, run: {command}"
    ):
        VideoIndex.of(video)
    replace(index, digest="0" * 32).save(place)
    with pytest.raises(ValueError, match=rf"another version of walk\.mp4.*again, run: {command}"):
        VideoIndex.of(video)
    index.save(place)
    video.write_bytes(video.read_bytes() + b"more")
    with pytest.raises(ValueError, match="belongs to another version"):
        VideoIndex.of(video)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the index of a video"),
        ("[1]", "is not the index of a video"),
        ('{"name": 1}', "is not the index of a video"),
        ('{"version": 1, "name": "a"}', "is not the index of a video: .*missing"),
        ('{"version": 7, "name": "a"}', "version 7, but this mixplug reads version 1.*--force"),
        ('{"version": 1, "color": 3}', "version 1"),
    ],
)
def test_invalid_index_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        VideoIndex.load(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"FileNotFoundError"):
        VideoIndex.load(tmp_path / "none.json")


def test_the_cache_is_used_if_the_folder_is_not_writable(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.access is patched, because root can write everywhere."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = VideoIndex.path_of(video)
    assert place.parent == tmp_path / "cache" / "mixplug" / "video"
    other = tmp_path / "other" / "walk.mp4"
    other.parent.mkdir()
    other.write_bytes(b"another walk")
    assert VideoIndex.path_of(other) != place  # of the same name
    beside = tmp_path / "walk.mp4.index.json"
    index_of(video).save(beside)
    assert VideoIndex.path_of(video) == beside
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert VideoIndex.path_of(other).is_relative_to(tmp_path / ".cache" / "mixplug")


def test_fingerprints_identify_a_video(video: Path, tmp_path: Path) -> None:
    known = fingerprint(video)
    copy = tmp_path / "copy.mp4"
    shutil.copy(video, copy)
    os.utime(copy, (0, 0))
    assert fingerprint(copy) == known
    content = bytearray(video.read_bytes())
    for place in (0, len(content) // 2 + 5, len(content) - 1):
        changed = content.copy()
        changed[place] ^= 1
        copy.write_bytes(changed)
        assert fingerprint(copy) != known
    copy.write_bytes(content[:-1])
    assert fingerprint(copy) != known
    (tmp_path / "empty.mp4").touch()
    assert fingerprint(tmp_path / "empty.mp4")[0] == 0


def test_frames_of_a_folder_are_sorted_by_number(tmp_path: Path) -> None:
    names = ["a1b2.png", "a1b10.png", "a2b1.jpg", "a010.png", "a10.png", "b.png"]
    for name in [*reversed(names), "notes.txt", ".a.png"]:
        Image.new("RGB", (4, 4)).save(tmp_path / name) if name.endswith("g") else (
            tmp_path / name
        ).touch()
    assert [file.name for file in frame_files(tmp_path)] == names
    known = fingerprint(tmp_path)
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    assert fingerprint(tmp_path) != known
