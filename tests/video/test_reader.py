"""Frames at given times, compared with decoding the whole video."""

from __future__ import annotations

import bisect
import multiprocessing
import os
import pickle
import shutil
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from video.films import (
    FPS,
    HEIGHT,
    WIDTH,
    all_frames,
    damage_file,
    detected_damage,
    film,
    packets,
    scene,
    shipped,
)
from video.workers import Frames

from mixplug.video import DecodeError, VideoReader, open_reader, scan
from mixplug.video.cache import DecodedFrame, FrameCache
from mixplug.video.packets import PacketQueue

JUMPY = [40 * i + 13 * (i % 3) + 200 * (i > 40) for i in range(100)]  # milliseconds
KINDS: dict[str, dict[str, Any]] = {
    "closed.mp4": {},
    "open.mp4": {"open_gop": True, "gop": 24},  # frames are shown before their keyframe
    "no_b.mp4": {"bframes": 0},
    "one_gop.mp4": {"gop": 1000},
    "intra.mp4": {"gop": 1, "bframes": 0},
    "mpeg4.mp4": {"codec": "mpeg4", "bframes": 2},
    "jumpy.mp4": {"milliseconds": JUMPY},
    "late.mkv": {"milliseconds": [5000 + t for t in JUMPY]},
    "stream.ts": {"open_gop": True, "gop": 24},
    "vp9.webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cached": {"cache_bytes": 1 << 30},
    "little cache": {"cache_bytes": 5 * HEIGHT * WIDTH * 3 // 2},
    "threads": {"threads": 2},
}


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One file of each kind, written on first use."""
    folder = tmp_path_factory.mktemp("films")

    def one(name: str) -> Path:
        path = folder / name
        return path if path.exists() else film(path, **KINDS[name])

    return one


def frame_at(times: list[float], frames: Tensor, at: float) -> Tensor:
    """The last frame that starts at ``at`` or before."""
    return frames[max(0, bisect.bisect_right(times, at + 1e-7) - 1)]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", KINDS)
def test_reads_the_frames_that_are_shown(films: Any, name: str, options: dict[str, Any]) -> None:
    """Random, spaced, consecutive and backward times, all read by one reader."""
    path = films(name)
    times, frames = all_frames(path)
    draws = np.random.default_rng(1)
    with open_reader(path, **options) as reader:
        assert reader.size == (HEIGHT, WIDTH)
        last = min(reader.duration, times[-1] + 0.04) - 1e-3
        starts = [draws.uniform(0, last) for _ in range(12)]
        asked = [[start] for start in starts]
        asked += [list(draws.uniform(0, last, 5)) for _ in range(8)]
        asked += [[min(start + 0.5 * i, last) for i in range(8)] for start in starts[:4]]
        first = bisect.bisect(times, starts[0])
        asked += [[time] for time in times[first : first + 30]]
        asked += [[time] for time in reversed(times[-12:])]
        asked += [[0.3, 0.3, 0.1, 0.3]]
        for wanted in asked:
            expected = torch.stack([frame_at(times, frames, at) for at in wanted])
            found = reader.read(wanted)
            assert found.dtype == torch.uint8 and found.is_contiguous()
            assert torch.equal(found, expected), wanted
        assert reader.skipped == 0


@pytest.mark.parametrize("name", ["closed.mp4", "open.mp4", "jumpy.mp4", "late.mkv"])
def test_a_frame_is_shown_until_the_next_one(films: Any, name: str) -> None:
    path = films(name)
    times, frames = all_frames(path)
    reader = open_reader(path)
    assert torch.equal(reader.read(times), frames)
    before_next = [after - 1e-3 for after in times[1:]]
    assert torch.equal(reader.read(before_next), frames[:-1])


@pytest.mark.parametrize("name", ["closed.mp4", "open.mp4", "late.mkv"])
def test_a_table_of_keyframes_does_not_change_the_frames(films: Any, name: str) -> None:
    path = films(name)
    times, frames = all_frames(path)
    keys = sorted(p.pts * p.time_base for p in packets(path) if p.is_keyframe)
    table = [float(key - keys[0]) for key in keys]
    draws = np.random.default_rng(2)
    for keyframes in (table, [0.0], [0.0, 1.234]):  # also a wrong one
        reader = open_reader(path, keyframes=keyframes)
        for _ in range(25):
            wanted = list(draws.uniform(0, times[-1], 3))
            assert torch.equal(
                reader.read(wanted), torch.stack([frame_at(times, frames, at) for at in wanted])
            )


class Counted:
    """A codec that counts its packets."""

    def __init__(self, codec: Any) -> None:
        self._codec, self.packets = codec, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def decode(self, packet: Any) -> Any:
        self.packets += packet is not None
        return self._codec.decode(packet)


@pytest.fixture
def seeks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    ticks: list[int] = []
    seek = PacketQueue.seek

    def recorded(self: PacketQueue, tick: int) -> None:
        ticks.append(tick)
        seek(self, tick)

    monkeypatch.setattr(PacketQueue, "seek", recorded)
    return ticks


def counted(path: Path, **options: Any) -> tuple[VideoReader, Counted]:
    reader = open_reader(path, **options)
    run = reader._get_source().decoder._run
    run.codec = Counted(run.codec)
    return reader, run.codec


def test_no_unnecessary_frames_are_decoded(tmp_path: Path, seeks: list[int]) -> None:
    """A keyframe every two seconds: frames 0, 50, 100, ... of 400, at 25 per second."""
    path = film(tmp_path / "f.mp4", 400, gop=50)
    expendable = {p.pts for p in packets(path) if not bytes(p)[4 + _bytes_before_slice(p)] & 0x60}
    assert 120 < len(expendable) < 280  # B-frames that are not references
    delay = 4  # frames that a decoder holds back
    for table in ((), tuple(range(0, 16, 2))):
        reader, codec = counted(path, keyframes=table)
        # the keyframe for 3 s is at 2 s; at least half of the frames in between are not references
        reader.read([3.0])
        assert 2 <= codec.packets <= 25 - 8 + delay
        codec.packets = 0
        reader.read([3.2])  # five frames later
        assert codec.packets <= 5
        del seeks[:]
        codec.packets = 0
        reader.read([3.2 + 1.0 * i for i in range(8)])
        # frames 80, 105, ..., 255: each is decoded from its keyframe or from the frame before
        needed = [0, 5, 25, 5, 25, 5, 25, 5]
        assert codec.packets <= sum(needed) * 0.75 + 8 * delay
        assert len(seeks) <= (4 if table else 0)


def _bytes_before_slice(packet: Any) -> int:
    """Number of bytes of a packet before its slice (supplemental information)."""
    data, place = bytes(packet), 0
    while data[place + 4] & 31 not in (1, 5):
        place += 4 + int.from_bytes(data[place : place + 4], "big")
    return place


def test_frames_in_order_need_one_seek(films: Any, seeks: list[int]) -> None:
    for name in ("closed.mp4", "open.mp4", "one_gop.mp4"):
        del seeks[:]
        reader, codec = counted(films(name))
        for number in range(100):
            reader.read([number / FPS])
        assert len(seeks) == 1 and codec.packets == 100


def test_cached_frames_are_not_decoded_again(films: Any, seeks: list[int]) -> None:
    times, frames = all_frames(films("closed.mp4"))
    reader, codec = counted(films("closed.mp4"), cache_bytes=1 << 30)
    reader.read([0.95])
    assert codec.packets >= 24
    codec.packets = 0
    del seeks[:]
    for number in range(24):  # all frames that were decoded on the way
        assert torch.equal(reader.read([times[number]])[0], frames[number])
    assert codec.packets == 0 and not seeks
    cache = reader._get_source().decoder._cache
    assert cache.held == 24 * cache.get(0).size >= 24 * HEIGHT * WIDTH * 3 // 2


def test_the_cache_drops_the_least_recently_used_frames() -> None:
    def one(start: int, until: int) -> DecodedFrame:
        return DecodedFrame(start, until, av.VideoFrame(32, 32, "yuv420p"))

    size = one(0, 1).size
    cache = FrameCache(3 * size)
    for start in (10, 30, 20):
        cache.put(one(start, start + 5))
    assert cache.get(9) is None and cache.get(15) is None and cache.get(35) is None
    assert cache.get(10).start == cache.get(14).start == 10
    cache.put(one(40, 50))  # 30 is the least recently used
    assert cache.get(30) is None and cache.get(20).start == 20 and cache.held == 3 * size
    cache.put(one(20, 30))  # again
    assert cache.held == 3 * size and cache.get(29).start == 20
    FrameCache(size - 1).put(one(0, 1))
    empty = FrameCache(0)
    empty.put(one(0, 1))
    assert empty.get(0) is None and empty.held == 0


def test_memory_stays_within_the_cache(films: Any) -> None:
    limit = 10 * HEIGHT * WIDTH * 3 // 2
    reader, _ = counted(films("one_gop.mp4"), cache_bytes=limit)
    draws = np.random.default_rng(3)
    for _ in range(40):
        reader.read(list(draws.uniform(0, 3.9, 2)))
        assert reader._get_source().decoder._cache.held <= limit


CROPS = [(0, 0, 80, 112), (0, 0, 1, 1), (79, 111, 1, 1), (13, 21, 33, 47), (7, 0, 64, 112)]


@pytest.mark.parametrize("crop", [*CROPS, (16, 32, 48, 64)])
def test_a_crop_is_a_part_of_the_frame(films: Any, crop: tuple[int, int, int, int]) -> None:
    top, left, height, width = crop
    reader = open_reader(films("closed.mp4"))
    whole = reader.read([0.2, 2.2, 1.0])
    part = reader.read([0.2, 2.2, 1.0], crop)
    assert torch.equal(part, whole[..., top : top + height, left : left + width])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotated_videos(tmp_path: Path, turns: int) -> None:
    """A matrix in the header defines the rotation; size and crops refer to the displayed frame."""
    path = film(tmp_path / "f.mp4", 10)
    _, frames = all_frames(path)
    content = bytearray(path.read_bytes())
    # a b c d of the matrix in 'tkhd', in 16.16 fixed point
    rows = {1: (0, -1, 1, 0), 2: (-1, 0, 0, -1), 3: (0, 1, -1, 0)}[turns]
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in rows)
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    expected = torch.rot90(frames[[0, 7]], turns, (2, 3))
    reader = open_reader(path)
    assert reader.size == tuple(expected.shape[2:])
    assert torch.equal(reader.read([0, 0.28]), expected)
    part = reader.read([0, 0.28], (5, 9, 40, 31))
    assert torch.equal(part, expected[..., 5:45, 9:40])


DAMAGE = {
    "one reference": ([30], "payload"),
    "a header": ([33], "header"),
    "near a keyframe": ([46], "payload"),
    "many": ([27, 28, 29, 30, 31, 60], "zeros"),
    "headers": ([26, 40, 41, 42, 99], "header"),
    "the first": ([0], "zeros"),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("gop", ["open.mp4", "closed.mp4", "mpeg4.mp4"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_frame_is_correct_or_an_error(
    films: Any, tmp_path: Path, damage: str, gop: str, options: dict[str, Any]
) -> None:
    places, how = DAMAGE[damage]
    if how == "payload":
        places = [detected_damage(films(gop), tmp_path / "f.mp4", places[0])]
    times, frames = all_frames(films(gop))
    path = damage_file(films(gop), tmp_path / "f.mp4", places, how)
    order = [packet.pts for packet in packets(path)]
    keys = [place for place, packet in enumerate(packets(films(gop))) if packet.is_keyframe]
    reader = open_reader(path, **options)
    failed = set()
    draws = np.random.default_rng(4)
    for number in [*range(100), *draws.integers(0, 100, 60)]:
        try:
            found = reader.read([times[number]])
        except DecodeError as error:
            assert "it depends on the damaged packet" in str(error)
            failed.add(int(number))
            continue
        assert torch.equal(found[0], frames[number]), number
    lost = {sorted(order).index(order[place]) for place in places}
    assert lost <= failed and reader.skipped >= 1
    # only frames that are decoded after the damage and before the next keyframe
    groups = [max(key for key in keys if key <= place) for place in places]
    ends = [min([key for key in keys if key > place], default=100) for place in groups]
    if options.get("threads", 1) == 1 and gop == "closed.mp4":
        may = {
            sorted(order).index(order[at])
            for place, end in zip(places, ends, strict=True)
            for at in range(place, end)
        }
        assert failed <= may
    assert set(range(80, 92)) & failed == set()


def test_a_truncated_file(films: Any, tmp_path: Path) -> None:
    """An incomplete download: existing frames are read, missing ones are an immediate error."""
    times, frames = all_frames(films("closed.mp4"))
    content = films("closed.mp4").read_bytes()
    found = packets(films("closed.mp4"))
    path = tmp_path / "f.mp4"
    path.write_bytes(content[: found[55].pos + found[55].size // 2])
    reader = open_reader(path)
    existing = sum(packet.pts < min(p.pts for p in found[55:]) for packet in found)
    assert 50 <= existing <= 55
    assert torch.equal(reader.read(times[:existing]), frames[:existing])
    for at in (2.4, 3.0, 3.9):
        with pytest.raises(DecodeError, match=f"at {at:.3f} s cannot be decoded"):
            reader.read([at])
    assert torch.equal(reader.read([0.4])[0], frames[10])


@pytest.mark.parametrize("lost", [1, 4, 20])
@pytest.mark.parametrize("third", [1, 2, 3])
def test_a_transport_stream_with_holes(films: Any, tmp_path: Path, third: int, lost: int) -> None:
    """Packets are not only damaged but missing, together with their frames."""
    times, frames = all_frames(films("stream.ts"))
    content = films("stream.ts").read_bytes()
    place = len(content) // 188 * third // 4 * 188
    path = tmp_path / "f.ts"
    path.write_bytes(content[:place] + content[place + 188 * lost :])
    intact = {packet.pts for packet in packets(path) if not packet.is_corrupt}
    missing = [p for p in packets(films("stream.ts")) if p.pts not in intact]
    reader = open_reader(path)
    failed = []
    for number in range(100):
        try:
            assert torch.equal(reader.read([times[number]])[0], frames[number]), number
        except DecodeError:
            failed.append(number)
    assert (len(failed) >= len(missing) - 1) and len(failed) <= 52
    # no frame fails where no packet is missing
    assert set(failed) <= set(range(24 * third - 24, 24 * third + 28))
    index = scan(path, path=tmp_path / "i.json")
    assert not missing or index.bad
    for number in failed:
        assert any(a <= times[number] + 1e-6 and times[number] < b for a, b, _ in index.bad)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_each_worker_has_its_own_reader(films: Any, start: str, threads: int) -> None:
    _, frames = all_frames(films("open.mp4"))
    reader = open_reader(films("open.mp4"), threads=threads, cache_bytes=1 << 16)
    reader.read([1.0])
    loader = DataLoader(
        Frames(reader), 4, num_workers=2, multiprocessing_context=multiprocessing.get_context(start)
    )
    pids = set()
    for number, (processes, numbers, found) in enumerate(loader):
        assert torch.equal(found, frames[numbers])
        pids |= set(processes.tolist())
        at = number * 7 % 100  # the parent's position in the file does not change
        assert torch.equal(reader.read([at / FPS])[0], frames[at])
    assert len(pids) == 2 and os.getpid() not in pids


def test_a_pickled_reader_contains_only_path_and_options(films: Any) -> None:
    reader = open_reader(films("closed.mp4"), cache_bytes=1 << 30)
    frames = reader.read([0.5, 3.0])
    sent = pickle.dumps(reader)
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert torch.equal(again.read([0.5, 3.0]), frames)
    reader.close()
    assert torch.equal(reader.read([0.5, 3.0]), frames)  # opens the file again


def test_a_real_clip() -> None:
    _, frames = all_frames(shipped("bikes.mp4"))
    reader = open_reader(shipped("bikes.mp4"))
    assert (reader.duration, reader.fps, reader.size) == (10.0, 25.0, (272, 640))
    wanted = [0.4 + i for i in range(8)]
    assert torch.equal(reader.read(wanted), frames[[10 + 25 * i for i in range(8)]])
    crop = reader.read(wanted, (1, 3, 256, 300))
    assert torch.equal(crop, frames[[10 + 25 * i for i in range(8)]][..., 1:257, 3:303])


def test_torchcodec_gives_the_same_frames_or_a_clear_error(films: Any) -> None:
    """The system decides which: torchcodec does not include FFmpeg's libraries."""
    path = films("late.mkv")
    plain = open_reader(path)
    wanted = [0.0, 1.0, 0.52, 3.999, 2.0]
    try:
        reader = open_reader(path, "torchcodec")
    except ImportError as error:
        assert "FFmpeg's libraries" in str(error) and "backend='pyav'" in str(error)
        assert "uv sync --inexact --extra torchcodec" in str(error)
        return
    assert reader.size == plain.size
    assert abs(reader.duration - plain.duration) < 0.05
    difference = reader.read(wanted).int() - plain.read(wanted).int()
    assert difference.abs().max() <= 2  # another FFmpeg converts colors differently
    part = reader.read(wanted, (3, 5, 40, 50))
    assert torch.equal(part, reader.read(wanted)[..., 3:43, 5:55])
    assert torch.equal(pickle.loads(pickle.dumps(reader)).read([1.0]), reader.read([1.0]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve frames whose names are out of order if they are sorted as text."""
    home = tmp_path / "frames"
    home.mkdir()
    for number in range(12):
        Image.fromarray(scene(0, number)).save(home / f"frame{number}.png")
    (home / "notes.txt").touch()
    (home / ".hidden.png").touch()
    return home


def test_a_folder_of_frames(folder: Path) -> None:
    reader = open_reader(folder, fps=10)
    assert (reader.duration, reader.fps, reader.size) == (1.2, 10.0, (HEIGHT, WIDTH))
    found = reader.read([1.1, 0.0, 0.3, 0.399, 1.199], (2, 3, 50, 60))
    for frame, number in zip(found, [11, 0, 3, 3, 11], strict=True):
        pixels = torch.from_numpy(scene(0, number)).permute(2, 0, 1)
        assert torch.equal(frame, pixels[:, 2:52, 3:63])
    assert torch.equal(pickle.loads(pickle.dumps(reader)).read([0.5]), reader.read([0.5]))


def test_invalid_images_in_a_folder(folder: Path) -> None:
    Image.fromarray(scene(0, 0, 40, 40)).save(folder / "frame3.png")
    (folder / "frame5.png").write_bytes((folder / "frame5.png").read_bytes()[:300])
    (folder / "frame6.png").write_text("no image")
    reader = open_reader(folder, fps=10)
    for number, message in (
        (3, "40 x 40 pixels, but the first frame has 80 x 112"),
        (5, "cannot be read as an image: image file is truncated"),
    ):
        with pytest.raises(DecodeError, match=rf"frame{number}\.png.*{message}"):
            reader.read([number / 10 + 0.01])
    with pytest.raises(DecodeError, match=r"frame6\.png cannot be read as an image"):
        reader.read([0.61])
    assert reader.skipped == 3
    reader.read([0.1])


def test_invalid_arguments(films: Any, tmp_path: Path, folder: Path) -> None:
    path = films("closed.mp4")
    reader = open_reader(path)
    for wanted, message in (
        ([], "needs at least one time, got 0"),
        ([0.5, 4.0], r"must be in \[0, 4\.000\) s, got 4"),
        ([-0.1], r"got -0\.1"),
        ([float("nan")], "got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            reader.read(wanted)
    for crop in ((0, 0, 81, 10), (0, 103, 10, 10), (-1, 0, 5, 5), (0, 0, 0, 5)):
        with pytest.raises(ValueError, match=r"must lie within 80 x 112 pixels of .*, got "):
            reader.read([0.1], crop)
    for arguments, message in (
        ((tmp_path / "no.mp4",), "There is no file or folder"),
        ((path, "decord"), r"one of \('auto', 'pyav', 'torchcodec', 'folder'\), got 'decord'"),
        ((path, "auto", 25.0), "fps is only for folders of frames"),
        ((folder,), "needs fps"),
        ((folder, "auto", 0.0), "needs fps > 0, got 0.0"),
        ((path, "auto", None, (), -1), "cache_bytes >= 0 and threads >= 1, got -1 and 1"),
        ((path, "auto", None, (), 0, 0), "got 0 and 0"),
    ):
        with pytest.raises(ValueError, match=message):
            open_reader(*arguments)


def test_files_that_are_not_videos(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello " * 1000)
    with pytest.raises(ValueError, match=r"text\.mp4 cannot be opened as a video"):
        open_reader(tmp_path / "text.mp4")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    with pytest.raises(ValueError, match="has no video that can be decoded"):
        open_reader(tmp_path / "sound.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images"):
        open_reader(tmp_path / "empty", fps=10)


def test_a_completely_damaged_file(films: Any, tmp_path: Path) -> None:
    path = damage_file(films("closed.mp4"), tmp_path / "f.mp4", range(100), "zeros")
    with pytest.raises(ValueError, match="has no frame that can be decoded"):
        open_reader(path)


def test_a_deleted_file(films: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.mp4"
    shutil.copy(films("closed.mp4"), path)
    reader = pickle.dumps(open_reader(path))
    path.unlink()
    with pytest.raises(ValueError, match="There is no file or folder"):
        pickle.loads(reader).read([0.0])
