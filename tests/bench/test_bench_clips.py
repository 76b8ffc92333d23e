"""Both sides of the clip benchmark read the same frames; its results are printed, not tested."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
import torch

from mixplug.bench import clips as bench
from mixplug.data.shipped import shipped_clip
from mixplug.video import VideoIndex
from mixplug.video.scan import scan

SETTINGS = {"frames": 3, "interval": 0.7, "crop": 48, "frames_per_epoch": 3 * 20}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty frames, repeated five times."""
    path = tmp_path_factory.mktemp("bench") / "film.mp4"
    return bench.make_film(path, 11, (72, 160), ("bikes",), frames=60)


def test_the_film_matches_its_index(film: Path) -> None:
    """A scan finds the same values, and every repetition shows the same frames."""
    index = VideoIndex.of(film)
    assert index.frames == 300 and index.duration == pytest.approx(12)
    with av.open(str(film)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 300
    for number in (0, 17, 59):
        for again in range(1, 5):
            assert (frames[number] == frames[number + 60 * again]).all()
    VideoIndex.path_of(film).unlink()
    scanned = scan(film)
    index.save(VideoIndex.path_of(film))
    assert scanned.keyframes == pytest.approx(index.keyframes) and len(index.keyframes) >= 5
    assert (scanned.frames, scanned.fps) == (index.frames, pytest.approx(index.fps))
    assert scanned.duration == pytest.approx(index.duration)


@pytest.mark.parametrize("group", [1, 4])
def test_both_alternatives_give_the_same_frames(film: Path, group: int) -> None:
    data = bench.clips_of(film, group, **SETTINGS)
    places = [data.place(0, index) for index in range(12)]
    for place, grouped in zip(places, data.read(places), strict=True):
        opened = bench.opened_for_each(data, place)
        assert opened.shape == (3, 3, 48, 48)
        assert torch.equal(opened, data.clip(place)) and torch.equal(opened, grouped)
    assert len({place.start for place in places}) == 12


def test_rows(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CLIPS", 4)
    of = bench.clips_of
    monkeypatch.setattr(bench, "clips_of", lambda path, group=1: of(path, group, **SETTINGS))
    ticks = []
    rows = list(bench.speed_rows(film, 1, lambda: ticks.append(0)))
    assert [row.bound for row in rows] == [3.0, bench.NO_BOUND] and len(ticks) == 8
    assert all(row.value > 0 for row in rows) and rows[0].at_least and rows[1].met
    row = bench.memory_row(film, 40, lambda: ticks.append(0))
    assert row.met and len(ticks) == 18 and "the first 4 clips" in row.note


def test_growing_memory_of_a_worker_is_detected(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound applies to current memory, whatever the parent process used before."""
    of, leaked = bench.clips_of, []
    monkeypatch.setattr(bench, "clips_of", lambda path, group=1: of(path, group, **SETTINGS))
    monkeypatch.setattr(
        bench.VideoClips, "read", lambda *_: leaked.append(torch.ones(1 << 21, dtype=torch.uint8))
    )
    row = bench.memory_row(film, 80, lambda: None)
    assert row.value > 30 and not row.met  # 2 MiB per group, 20 groups, 2 for warm-up


def test_shipped_clips_exist() -> None:
    assert all(shipped_clip(name).exists() for name in bench.SOURCES)
