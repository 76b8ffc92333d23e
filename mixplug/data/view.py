"""One augmented view of a clip, with all its parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.optional import optional
from mixplug.renamed import renamed_keys

_THRESHOLD = 128  # solarization inverts values from here on


@renamed_keys(grey="gray", solarise="solarize")
@dataclass(frozen=True)
class View:
    """The operations on every frame of a clip, in the order of the fields.

    Attributes:
        top: top of the crop in pixels.
        left: left of the crop in pixels.
        height: height of the crop in pixels.
        width: width of the crop in pixels.
        size: side of the square to which the crop is resized.
        flip: whether to flip horizontally.
        jitter: (operation, factor) pairs in order; operations are 'brightness', 'contrast',
            'saturation' and 'hue'.
        gray: whether to convert to gray.
        sigma: standard deviation of the blur in pixels; 0 means no blur.
        solarize: whether to invert values of 128 or more.
    """

    top: int
    left: int
    height: int
    width: int
    size: int
    flip: bool = False
    jitter: tuple[tuple[str, float], ...] = ()
    gray: bool = False
    sigma: float = 0.0
    solarize: bool = False

    def __call__(self, clip: Tensor) -> Tensor:
        """Apply the view: (T, 3, H, W) uint8 to (T, 3, size, size) uint8."""
        ops = optional("torchvision.transforms.v2.functional", "video", "MultiCrop")
        place = (self.top, self.left, self.height, self.width)
        view: Tensor = ops.resized_crop(
            clip, *place, [self.size] * 2, ops.InterpolationMode.BICUBIC
        )
        if self.flip:
            view = ops.horizontal_flip(view)
        for name, factor in self.jitter:
            view = getattr(ops, f"adjust_{name}")(view, factor)
        if self.gray:
            view = ops.rgb_to_grayscale(view, 3)
        if self.sigma > 0:
            view = blurred(view, self.sigma)
        if self.solarize:
            view = torch.where(view < _THRESHOLD, view, 255 - view)
        return view.contiguous()


def blurred(clip: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (T, 3, H, W) uint8, truncated at 3 sigma; border pixels are repeated."""
    down, along = (_blur_matrix(side, sigma) for side in clip.shape[-2:])
    frames = down @ (clip.float() @ along.T)
    return frames.round_().clamp_(0, 255).byte()


def _blur_matrix(side: int, sigma: float) -> Tensor:
    """The blur as a (side, side) matrix; on the CPU, this takes a third of a convolution's time."""
    radius = math.ceil(3 * sigma)
    steps = torch.arange(-radius, radius + 1)
    weights = (-(steps / sigma).square() / 2).exp()
    sources = (torch.arange(side)[:, None] + steps).clamp(0, side - 1)
    return torch.zeros(side, side).scatter_add_(
        1, sources, (weights / weights.sum()).expand(side, -1)
    )
