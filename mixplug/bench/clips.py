"""Clips per second compared with opening a reader per sample, and the memory of a worker."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixplug.bench.measure import NO_BOUND, Row, in_turns, ratio
from mixplug.data.clips import Place, VideoClips
from mixplug.data.shipped import shipped_clip
from mixplug.optional import optional
from mixplug.video import VideoIndex
from mixplug.video.fingerprint import fingerprint

Tick = Callable[[], None]
SECONDS, SIZE, FPS = 600, (720, 1280), 25
CLIPS, GROUP, SHARE = 16, 4, 10  # the first 1 / SHARE of all clips warms up a worker
HELD = Path("/proc/self/smaps_rollup")  # exists only on Linux
SOURCES = ("bikes", "bigbuckbunny")


def clip_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """Clips of 8 frames, one second apart, 300x300 pixels, from 10 minutes of H.264 at 1280x720.

    Everything runs on the CPU in one thread.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = make_film(Path(folder) / "film.mp4", SECONDS, SIZE)
        tick()
        yield from speed_rows(path, min(rounds, 3), tick)
        if HELD.exists():
            yield memory_row(path, 2000, tick)


def speed_rows(path: Path, rounds: int, tick: Tick) -> Iterator[Row]:
    """Read the same clips with mixplug, alone and in groups, and with a reader opened per clip."""
    alone, grouped = clips_of(path), clips_of(path, GROUP)
    places = {data: [data.place(0, i) for i in range(CLIPS)] for data in (alone, grouped)}
    calls = {
        "alone": lambda: alone.read(places[alone]),
        "opened": lambda: [opened_for_each(alone, place) for place in places[alone]],
        "grouped": lambda: grouped.read(places[grouped]),
        "opened, grouped": lambda: [opened_for_each(grouped, p) for p in places[grouped]],
    }
    seconds = in_turns(calls, rounds, tick)
    per_second = {name: CLIPS / min(times) for name, times in seconds.items()}
    note = f"{per_second['grouped']:.1f} per second, {per_second['opened, grouped']:.1f} otherwise"
    times = ratio(seconds["opened, grouped"], seconds["grouped"])
    yield Row(
        f"clips per second, in groups of {GROUP} / reader per clip", times, 3.0, True, "x", note
    )
    note = f"{per_second['alone']:.1f} per second, {per_second['opened']:.1f} otherwise"
    times = ratio(seconds["opened"], seconds["alone"])
    yield Row("  independent clips / reader per clip", times, NO_BOUND, False, "x", note)


def memory_row(path: Path, count: int, tick: Tick) -> Row:
    """Growth of a worker's memory after the first tenth of ``count`` clips."""
    data = Memory(clips_of(path, GROUP))
    held = []
    for (now,) in DataLoader(data, 1, sampler=range(-(-count // GROUP)), num_workers=1):
        held.append(int(now))
        tick()
    early = max(held[: len(held) // SHARE])
    note = f"up to {early / 1e6:.0f} MB over the first {count // SHARE:,} clips"
    name = f"  growth of a worker over {count:,} clips"
    return Row(name, (max(held[-len(held) // SHARE :]) - early) / 1e6, 20.0, False, "MB", note)


class Memory(Dataset[int]):
    """An item reads a group of clips and returns the memory of its process in bytes.

    This is the current memory, not the peak, because a process inherits the peak of its parent.
    """

    def __init__(self, data: VideoClips) -> None:
        self.data = data

    def __getitem__(self, key: int) -> int:
        first = key * self.data.group
        keys = range(first, first + self.data.group)
        self.data.read([self.data.place(*divmod(k, len(self.data))) for k in keys])
        return resident()


def resident() -> int:
    """Private memory of this process in bytes."""
    lines = HELD.read_text().splitlines()[1:]
    parts = {name: int(value.split()[0]) for name, _, value in (x.partition(":") for x in lines)}
    return 1024 * sum(parts[name] for name in ("Private_Clean", "Private_Dirty", "Swap"))


def clips_of(path: Path, group: int = 1, **settings: Any) -> VideoClips:
    """Clips as in 6.5.2, with other settings if given."""
    return VideoClips(path, group=group, **settings)


def opened_for_each(data: VideoClips, place: Place) -> Tensor:
    """Read a clip in the simplest way: open, seek, decode all frames on the way, convert, crop."""
    av = optional("av", "video", "The benchmark of clips")
    ends = iter([place.start + frame * data.interval for frame in range(data.frames)])
    found, last, end = [], None, next(ends)
    with av.open(str(place.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        origin, base = stream.start_time or 0, stream.time_base
        container.seek(origin + int(end / base), stream=stream)
        for frame in itertools.chain(container.decode(stream), [None]):
            while end is not None and (frame is None or (frame.pts - origin) * base > end):
                found.append(_cropped(last, data.crop, place.corner))
                end = next(ends, None)
            if end is None:
                break
            last = frame
    return torch.stack(found)


def _cropped(frame: Any, crop: int | None, corner: tuple[int, int] | None) -> Tensor:
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    if crop is None or corner is None:
        return pixels
    return pixels[:, corner[0] : corner[0] + crop, corner[1] : corner[1] + crop]


def make_film(
    path: Path,
    seconds: float,
    size: tuple[int, int],
    sources: Sequence[str] = SOURCES,
    frames: int | None = None,
) -> Path:
    """An H.264 film with its index: shipped clips, encoded once and repeated.

    Args:
        path: path of the film.
        seconds: shortest duration.
        size: (height, width).
        sources: names of shipped clips.
        frames: largest number of frames to encode; None encodes all.
    """
    av = optional("av", "video", "The benchmark of clips")
    part = path.with_name(f"part-{path.name}")
    with av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
        stream.options = {"preset": "veryfast"}
        pictures = itertools.chain(*map(_pictures, sources))
        for number, picture in enumerate(itertools.islice(pictures, frames)):
            resized = picture.reformat(size[1], size[0], "yuv420p")
            resized.pts, resized.time_base, resized.pict_type = number, Fraction(1, FPS), 0
            container.mux(stream.encode(resized))
        container.mux(stream.encode(None))
    keyframes, duration, count = _repeated(part, path, seconds)
    bytes_, digest = fingerprint(path)
    VideoIndex(
        path.name, bytes_, digest, duration, FPS, size[1], size[0], count, "h264",
        keyframes=tuple(keyframes), complete=True,
    ).save(VideoIndex.path_of(path))  # fmt: skip
    return path


def _pictures(name: str) -> Iterator[Any]:
    av = optional("av", "video", "The benchmark of clips")
    with av.open(str(shipped_clip(name))) as container:
        yield from container.decode(video=0)


def _repeated(part: Path, path: Path, seconds: float) -> tuple[list[float], float, int]:
    """Write the packets of a film repeatedly; returns keyframes, duration and number of frames."""
    av = optional("av", "video", "The benchmark of clips")
    keyframes: list[float] = []
    with av.open(str(part)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        base, length, first = stream.time_base, stream.duration, stream.start_time or 0
        packets = [(p, p.pts - first, p.dts - first) for p in source.demux(stream) if p.size]
        output = target.add_stream_from_template(stream)
        times = -(-int(seconds / base) // length)
        for offset in range(0, times * length, length):
            for packet, pts, dts in packets:
                packet.pts, packet.dts, packet.time_base = pts + offset, dts + offset, base
                packet.stream = output
                if packet.is_keyframe:
                    keyframes.append(float((pts + offset) * base))
                target.mux(packet)
    part.unlink()
    return keyframes, float(times * length * base), times * len(packets)
