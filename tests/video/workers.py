"""A data set that a spawned worker can import."""

from __future__ import annotations

import os

from torch import Tensor
from torch.utils.data import Dataset
from video.films import FPS

from mixplug.video import VideoReader


class Frames(Dataset[tuple[int, int, Tensor]]):
    """Process id, frame number and frame from a reader that was used before workers started."""

    def __init__(self, reader: VideoReader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return 40

    def __getitem__(self, place: int) -> tuple[int, int, Tensor]:
        number = place * 37 % 100
        return os.getpid(), number, self.reader.read([number / FPS])[0]
