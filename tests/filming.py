"""Videos whose frames encode the number of the frame and the positions of the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixplug.video import VideoIndex
from mixplug.video.fingerprint import fingerprint

BITS = 10


def frames_folder(path: Path, count: int, height: int = 40, width: int = 50) -> Path:
    """PNGs: red is the number of the frame, green the row and blue the column."""
    path.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(frame(number, height, width)).save(path / f"{number}.png")
    return path


def frame(number: int, height: int, width: int) -> np.ndarray:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = number
    pixels[..., 1] = np.arange(height)[:, None]
    pixels[..., 2] = np.arange(width)
    return pixels


def save_index(
    path: Path,
    fps: float,
    frames: int,
    size: tuple[int, int] = (40, 50),
    cuts: Sequence[float] = (),
    bad: Sequence[tuple[float, float, str]] = (),
    complete: bool = True,
) -> VideoIndex:
    """Save the index that a scan of the video would create."""
    of, digest = fingerprint(path)
    index = VideoIndex(
        path.name, of, digest, frames / fps, fps, size[1], size[0], frames, "images",
        cuts=tuple(cuts), bad=tuple(bad), complete=complete,
    )  # fmt: skip
    index.save(VideoIndex.path_of(path))
    return index


def film(
    path: Path, count: int, fps: int = 10, height: int = 48, width: int = 160, gop: int = 10
) -> Path:
    """An MPEG-4 file whose frames show their number as bits, which survive compression."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, 0
        stream.codec_context.bit_rate = 2_000_000
        for number in range(count):
            bits = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8)
            row = np.repeat(bits * 200 + 20, width // BITS)
            pixels = np.broadcast_to(row[None, :, None], (height, len(row), 3))
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def numbers(clip: Tensor) -> list[int]:
    """The frame numbers that a clip (T, 3, H, W) of whole frames of :func:`film` shows."""
    columns = clip.float().mean((1, 2)).unflatten(-1, (BITS, -1)).mean(-1) > 120
    return (columns * 2 ** torch.arange(BITS)).sum(-1).tolist()


def spoil(path: Path, first: float, last: float) -> None:
    """Overwrite the packets of frames in [first, last] seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        places = [
            (packet.pos, packet.size)
            for packet in container.demux(stream)
            if packet.pts is not None and first <= packet.pts * stream.time_base <= last
        ]
    content = bytearray(path.read_bytes())
    for place, size in places:
        content[place : place + size] = b"\xff" * size
    path.write_bytes(content)
