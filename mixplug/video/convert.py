"""Conversion of decoded frames to RGB, only for the requested crop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixplug.optional import optional

_ALIGNED = 16  # pixels; a multiple of the chroma subsampling and of the conversion's block size


def quarter_turns(frame: Any) -> int:
    """Number of counterclockwise quarter turns that make a frame upright, in [0, 4)."""
    return round(frame.rotation / 90) % 4


class Converter:
    """Converts the same crop of many frames.

    The frame is cropped before it is converted, because a 4K frame in RGB takes 24 MB.

    Args:
        crop: (top, left, height, width) in the upright frame.
        turns: counterclockwise quarter turns that make a frame upright.
    """

    def __init__(self, crop: tuple[int, int, int, int], turns: int) -> None:
        self._av = optional("av", "video", "Reading videos")
        self._crop, self._turns = crop, turns
        self._rgb = self._av.video.reformatter.VideoReformatter()
        self._graph: Any = None
        self._kind: tuple[int, int, str] | None = None

    def __call__(self, frame: Any) -> Tensor:
        """Convert a frame to (3, h, w) uint8; the result is a view and not contiguous."""
        top, left, height, width = self._stored(frame.height, frame.width)
        y, x = top // _ALIGNED * _ALIGNED, left // _ALIGNED * _ALIGNED
        high = min(-(-(top + height - y) // _ALIGNED) * _ALIGNED, frame.height - y)
        wide = min(-(-(left + width - x) // _ALIGNED) * _ALIGNED, frame.width - x)
        if (high, wide) != (frame.height, frame.width):
            frame = self._cropped(frame, f"w={wide}:h={high}:x={x}:y={y}:exact=1")
        pixels = torch.from_numpy(self._rgb.reformat(frame, format="rgb24").to_ndarray())
        part = pixels[top - y : top - y + height, left - x : left - x + width]
        return torch.rot90(part, self._turns, (0, 1)).permute(2, 0, 1)

    def _stored(self, high: int, wide: int) -> tuple[int, int, int, int]:
        """The crop in a stored frame of ``high`` x ``wide`` pixels, before it is turned upright."""
        top, left, height, width = self._crop
        if self._turns % 2:
            high, wide = wide, high  # size of the upright frame
        for _ in range(self._turns):  # undo a turn
            top, left, height, width = left, high - top - height, width, height
            high, wide = wide, high
        return top, left, height, width

    def _cropped(self, frame: Any, crop: str) -> Any:
        kind = frame.width, frame.height, frame.format.name
        if kind != self._kind:
            self._kind, self._graph = kind, self._av.filter.Graph()
            # the source needs a time base, although times are not used
            source = self._graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            )
            cut, sink = self._graph.add("crop", crop), self._graph.add("buffersink")
            source.link_to(cut)
            cut.link_to(sink)
            self._graph.configure()
        self._graph.push(frame)
        return self._graph.pull()
