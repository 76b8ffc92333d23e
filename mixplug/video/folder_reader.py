"""Frames that are images in a folder.

They are upright, as frames of video files are: EXIF orientations are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mixplug.image_files import opened, read_image, upright_size
from mixplug.video.fingerprint import frame_files
from mixplug.video.reader import Crop, DecodeError, VideoReader

_ROUNDING = 1e-6  # rounding error of a time in float64, in frames


class FolderReader(VideoReader):
    """See :func:`mixplug.video.open_reader`."""

    def __init__(self, path: str | Path, fps: float) -> None:
        if not fps > 0:
            raise ValueError(f"A folder of frames needs fps > 0, got {fps}.")
        self.fps = float(fps)
        self._damaged: set[Path] = set()
        super().__init__(path)

    def _open(self) -> list[Path]:
        files = frame_files(self.path)
        if not files:
            raise ValueError(f"{self.path} has no images.")
        self.duration = len(files) / self.fps
        try:
            with opened(files[0]) as image:
                self.size = upright_size(image)
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return files

    def _read(self, source: list[Path], times: Sequence[float], crop: Crop) -> Tensor:
        top, left, height, width = crop
        clip = torch.empty(len(times), 3, height, width, dtype=torch.uint8)
        for place, time in enumerate(times):
            file = source[min(int(time * self.fps + _ROUNDING), len(source) - 1)]
            try:
                clip[place] = self._pixels(file)[:, top : top + height, left : left + width]
            except DecodeError:
                self._damaged.add(file)
                self.skipped = len(self._damaged)
                raise
        return clip

    def _pixels(self, file: Path) -> Tensor:
        try:
            pixels = read_image(file, orientation="apply")
        except ValueError as error:
            raise DecodeError(str(error)) from error
        height, width = pixels.shape[1:]
        if (height, width) != self.size:
            raise DecodeError(
                f"{file} has {height} x {width} pixels, but the first frame has "
                f"{self.size[0]} x {self.size[1]}."
            )
        return pixels
