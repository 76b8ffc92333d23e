"""Images of noise, on which no classifier should be confident (Table 3.5)."""

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
    """Images of independent random pixels, drawn on demand.

    'uniform' is U(0, 1). 'gaussian' is N(0.5, 0.5), where the second number is the standard
    deviation, clamped to [0, 1]. Values are clamped because image files hold no others, and a
    network that normalizes its input would otherwise see impossible pixels. After the clamp, 16 %
    of the pixels are 0 and 16 % are 1. (The thesis writes "test images with noise" in 3.4.4; here
    the images are noise alone, as in the works that it follows.)

    Item i depends on (seed, i) alone. Global random generators are not changed.

    Args:
        kind: key of :data:`NOISE`.
        count: number of images.
        shape: shape of an image, (3, H, W).
        seed: seed of all random draws.

    Raises:
        ValueError: an unknown kind, count < 1, or a shape that is not (channels, height, width).
    """

    def __init__(self, kind: str, count: int, shape: Sequence[int], seed: int = 0) -> None:
        if kind not in NOISE:
            raise ValueError(f"kind must be one of {', '.join(NOISE)}; got {kind!r}.")
        if count < 1 or len(shape) != 3 or min(shape) < 1:
            raise ValueError(
                f"Noise needs count >= 1 and a shape (channels, height, width), got {count} and "
                f"{tuple(shape)}."
            )
        self.kind, self.count, self.shape, self.seed = kind, count, tuple(shape), seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        """An image of the given shape, float32 in [0, 1].

        Raises:
            IndexError: an index outside [0, count).
        """
        if not 0 <= index < self.count:
            raise IndexError(f"The index must be in [0, {self.count}), got {index}.")
        return NOISE[self.kind](self.shape, generators(self.seed, 0, index).local)
