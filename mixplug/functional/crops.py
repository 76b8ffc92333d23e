"""Square crops around a box, and coordinates of boxes inside of a crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

_MIN_SIDE = 10.0  # pixels of a box that remain in the image


@dataclass(frozen=True)
class Square:
    """A square of pixels, [left, left + side) by [top, top + side); it may leave the image."""

    left: int
    top: int
    side: int


def square_around(box: Sequence[float], factor: float) -> Square:
    """Square with the same center as a box and ``factor^2`` times its area, in whole pixels.

    Args:
        box: left, top, width and height, in pixels.
        factor: side of the square divided by the geometric mean of width and height.

    Raises:
        ValueError: the box has no area, or its numbers are not finite.
    """
    left, top, width, height = (float(number) for number in box)
    if not (width > 0 and height > 0 and math.isfinite(left + top + width + height)):
        raise ValueError(
            f"A crop needs a box (left, top, width, height) with width and height > 0, got "
            f"{[left, top, width, height]}."
        )
    side = math.ceil(math.sqrt(width * height) * factor)
    return Square(
        round(left + width / 2 - side / 2), round(top + height / 2 - side / 2), max(side, 1)
    )


def cut(image: Tensor, square: Square, size: int) -> Tensor:
    """Crop a square from an image and resize it bilinearly. Pixels outside of the image are black.

    Args:
        image: (3, H, W) uint8.
        square: the square to crop, in pixels of the image.
        size: side of the result, in pixels.

    Returns:
        (3, size, size) uint8.
    """
    height, width = image.shape[-2:]
    top, left = max(square.top, 0), max(square.left, 0)
    bottom = max(min(square.top + square.side, height), top)
    right = max(min(square.left + square.side, width), left)
    inside = image[:, top:bottom, left:right]
    if inside.numel():
        before = left - square.left, top - square.top
        after = (
            square.side - before[0] - inside.shape[2],
            square.side - before[1] - inside.shape[1],
        )
        padded = F.pad(inside, (before[0], after[0], before[1], after[1]))
    else:
        padded = image.new_zeros(image.shape[0], square.side, square.side)
    resized = F.interpolate(padded[None], (size, size), mode="bilinear", antialias=True)
    return resized[0]


def into_square(boxes: Tensor, square: Square) -> Tensor:
    """Convert boxes (left, top, width, height), (..., 4), from pixels to fractions of a square."""
    return (boxes - _origin(boxes, square)) / square.side


def out_of_square(boxes: Tensor, square: Square) -> Tensor:
    """Convert boxes (left, top, width, height), (..., 4), from fractions of a square to pixels."""
    return boxes * square.side + _origin(boxes, square)


def keep_inside(box: Sequence[float], height: int, width: int) -> list[float]:
    """Clip a box to an image so that its width and height are at least 10 pixels.

    In an image narrower or lower than 10 pixels, the minimum is the side of the image.

    Args:
        box: left, top, width and height, in pixels.
        height: height of the image.
        width: width of the image.

    Returns:
        Left, top, width and height of the clipped box.
    """
    left, top, box_width, box_height = box
    x, w = _clip_side(left, left + box_width, width)
    y, h = _clip_side(top, top + box_height, height)
    return [x, y, w, h]


def _clip_side(low: float, high: float, size: int) -> tuple[float, float]:
    """Start and length of one side of a box, clipped to [0, size]."""
    minimum = min(_MIN_SIDE, float(size))
    start = min(max(low, 0.0), size - minimum)
    return start, max(min(high, float(size)) - start, minimum)


def _origin(boxes: Tensor, square: Square) -> Tensor:
    return boxes.new_tensor([square.left, square.top, 0, 0])
