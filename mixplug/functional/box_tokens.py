"""Boxes as sequences of tokens, which a decoder reads out one after the other (6.5.3) [0].

A box of a square crop is (x, y, w, h) in shares of its side, and four tokens in [0, bins) stand for
center x, center y, width and height. Letters: B boxes.

- [0]: SeqTrack: Sequence to Sequence Learning for Visual Object Tracking, 2023,
  https://arxiv.org/abs/2304.14394
"""

from __future__ import annotations

import torch
from torch import Tensor

COORDINATES = 4


def clip_boxes(boxes: Tensor) -> Tensor:
    """The parts of boxes that lie in the unit square.

    Args:
        boxes: (..., 4), left, top, width and height.

    Returns:
        (..., 4); a box outside has width or height 0.
    """
    low = boxes[..., :2].clamp(0, 1)
    high = (boxes[..., :2] + boxes[..., 2:]).clamp(0, 1)
    return torch.cat([low, (high - low).clamp(min=0)], -1)


def to_center(boxes: Tensor) -> Tensor:
    """(left, top, w, h) to (center x, center y, w, h), both (..., 4)."""
    return torch.cat([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], -1)


def to_corner(boxes: Tensor) -> Tensor:
    """(center x, center y, w, h) to (left, top, w, h), both (..., 4)."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], -1)


def quantize(shares: Tensor, bins: int) -> Tensor:
    """The nearest of ``bins`` evenly spaced values, ``round(share * (bins - 1))``.

    SeqTrack's code takes the next lower one instead, which is half a bin off on average.

    Args:
        shares: of any shape, in [0, 1]; what is outside counts as its nearest end.
        bins: their number, 2 or more.

    Returns:
        int64 in [0, bins).

    Raises:
        ValueError: fewer bins.
    """
    _require_bins(bins)
    return (shares.clamp(0, 1) * (bins - 1)).round().long()


def dequantize(tokens: Tensor, bins: int) -> Tensor:
    """The values of tokens, ``token / (bins - 1)`` in [0, 1], float32.

    They are within half a bin, ``1 / (2 (bins - 1))``, of what was quantized.

    Raises:
        ValueError: fewer than 2 bins.
    """
    _require_bins(bins)
    return tokens.float() / (bins - 1)


def box_tokens(boxes: Tensor, bins: int) -> Tensor:
    """Tokens of what is in the unit square of boxes.

    Args:
        boxes: (B, 4), left, top, width and height.
        bins: see :func:`quantize`.

    Returns:
        (B, 4) int64.
    """
    return quantize(to_center(clip_boxes(boxes)), bins)


def token_boxes(tokens: Tensor, bins: int) -> Tensor:
    """Boxes of tokens (B, 4): left, top, width and height, (B, 4) float32."""
    return to_corner(dequantize(tokens, bins))


def start_token(bins: int) -> int:
    """What a sequence begins with."""
    return bins + 1


def end_token(bins: int) -> int:
    """What a sequence ends with."""
    return bins


def teacher_forcing(tokens: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """What a decoder is given of a sequence, and what it should say at each place.

    Args:
        tokens: (B, 4), the coordinates.
        bins: their number.

    Returns:
        Inputs (start, t1, t2, t3, t4) and targets (t1, t2, t3, t4, end), (B, 5) each.
    """
    start = torch.full_like(tokens[:, :1], start_token(bins))
    end = torch.full_like(tokens[:, :1], end_token(bins))
    return torch.cat([start, tokens], 1), torch.cat([tokens, end], 1)


def center_window(bins: int, device: torch.device | None = None) -> Tensor:
    """Hann window over the bins, ``sin^2(pi i / (bins - 1))``, (bins,) float32.

    Likelihoods of a center are multiplied by it: an object is sought where it was.
    """
    _require_bins(bins)
    return torch.hann_window(bins, periodic=False, device=device)


def _require_bins(bins: int) -> None:
    if bins < 2:
        raise ValueError(f"Coordinates need bins >= 2, got {bins}.")
