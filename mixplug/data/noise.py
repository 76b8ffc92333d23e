"""Noise in the place of images: what no classifier should be sure of (Table 3.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mixplug import sampling
from mixplug.data.clip_samplers import generators

NOISE: Mapping[str, Callable[[Sequence[int], torch.Generator], Tensor]] = {
    "uniform": sampling.uniform,
    "gaussian": lambda shape, source: (0.5 + 0.5 * sampling.normal(shape, source)).clamp(0, 1),
}


class Noise(Dataset[Tensor]):
    """Images of independent pixels, drawn when they are asked for.

    'uniform' is U(0, 1). 'gaussian' is N(0.5, 0.5), 0.5 being the deviation, clamped to [0, 1]:
    pixels have no other values, and a network that normalizes its input would otherwise see what no
    file can hold. Of such pixels 16 % are 0 and 16 % are 1. (3.4.4 writes of "test images with
    noise"; it is read as noise alone, as in the works that it follows.)

    Item i depends on (seed, i) alone, and no global generator moves.

    Args:
        kind: key of :data:`NOISE`.
        count: number of images.
        shape: of each, (3, H, W).
        seed: of all draws.

    Raises:
        ValueError: another kind, count < 1, or a shape that is not (channels, height, width).
    """

    def __init__(self, kind: str, count: int, shape: Sequence[int], seed: int = 0) -> None:
        if kind not in NOISE:
            raise ValueError(f"There is no noise {kind!r}; there are {', '.join(NOISE)}.")
        if count < 1 or len(shape) != 3 or min(shape) < 1:
            raise ValueError(
                f"Noise needs count >= 1 and a shape (channels, height, width), got {count} and "
                f"{tuple(shape)}."
            )
        self.kind, self.count, self.shape, self.seed = kind, count, tuple(shape), seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        """An image of the shape, float32 in [0, 1].

        Raises:
            IndexError: not in [0, count).
        """
        if not 0 <= index < self.count:
            raise IndexError(f"There are {self.count} images of noise, got index {index}.")
        return NOISE[self.kind](self.shape, generators(self.seed, 0, index).local)
