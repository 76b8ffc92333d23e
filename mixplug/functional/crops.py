"""Square crops around a box: where they are, what they show, and boxes in and out of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

_LEAST = 10.0  # pixels of a box that stay in the image


@dataclass(frozen=True)
class Square:
    """Whole pixels of an image, or beside it: [left, left + side) by [top, top + side)."""

    left: int
    top: int
    side: int


def square_around(box: Sequence[float], factor: float) -> Square:
    """The square with the center of a box and ``factor^2`` times its area.

    Args:
        box: left, top, width and height, in pixels.
        factor: of the side, over the geometric mean of width and height.

    Raises:
        ValueError: a box without area, or numbers that are not finite.
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
    """What a square shows, bilinearly resized; black beside the image.

    Args:
        image: (3, H, W) uint8.
        square: of its pixels.
        size: side of the result.

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
    """Boxes (..., 4) in pixels of an image, in shares of a square's side."""
    return (boxes - _origin(boxes, square)) / square.side


def out_of_square(boxes: Tensor, square: Square) -> Tensor:
    """Boxes (..., 4) in shares of a square's side, in pixels of the image."""
    return boxes * square.side + _origin(boxes, square)


def keep_inside(box: Sequence[float], height: int, width: int) -> list[float]:
    """A box with at least 10 pixels (or all there are) of its width and height in the image.

    Args:
        box: left, top, width and height, in pixels.
        height: of the image.
        width: of the image.
    """
    left, top, wide, high = box
    x, w = _keep(left, left + wide, width)
    y, h = _keep(top, top + high, height)
    return [x, y, w, h]


def _keep(low: float, high: float, size: int) -> tuple[float, float]:
    least = min(_LEAST, float(size))
    start = min(max(low, 0.0), size - least)
    return start, max(min(high, float(size)) - start, least)


def _origin(boxes: Tensor, square: Square) -> Tensor:
    return boxes.new_tensor([square.left, square.top, 0, 0])
