"""Boxes as sequences of tokens, which a decoder predicts one by one (§6.5.3) [0].

A box in a square crop is (left, top, width, height), in fractions of the side of the crop. Four
tokens in [0, bins) encode its center x, center y, width and height. Letters: B boxes.

- [0]: SeqTrack: Sequence to Sequence Learning for Visual Object Tracking, 2023,
  https://arxiv.org/abs/2304.14394
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.renamed import old_names

COORDINATES = 4


def clip_boxes(boxes: Tensor) -> Tensor:
    """Clip boxes to the unit square.

    Args:
        boxes: left, top, width and height, (..., 4).

    Returns:
        Clipped boxes, (..., 4). A box outside of the square gets width or height 0.
    """
    low = boxes[..., :2].clamp(0, 1)
    high = (boxes[..., :2] + boxes[..., 2:]).clamp(0, 1)
    return torch.cat([low, (high - low).clamp(min=0)], -1)


def to_center(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) from (left, top, w, h) to (center x, center y, w, h)."""
    return torch.cat([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], -1)


def to_corner(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) from (center x, center y, w, h) to (left, top, w, h)."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], -1)


def quantize(shares: Tensor, bins: int) -> Tensor:
    """Round values to the nearest of ``bins`` evenly spaced ones: ``round(value * (bins - 1))``.

    The code of SeqTrack rounds down instead, which is wrong by half a bin on average.

    Args:
        shares: values in [0, 1], of any shape. Values outside are clamped.
        bins: number of bins, at least 2.

    Returns:
        Tokens in [0, bins), int64, of the same shape.

    Raises:
        ValueError: fewer than 2 bins.
    """
    _require_bins(bins)
    return (shares.clamp(0, 1) * (bins - 1)).round().long()


def dequantize(tokens: Tensor, bins: int) -> Tensor:
    """Values that tokens encode: ``token / (bins - 1)`` in [0, 1], float32.

    A value that was quantized differs from its token's value by at most half a bin,
    ``1 / (2 (bins - 1))``.

    Raises:
        ValueError: fewer than 2 bins.
    """
    _require_bins(bins)
    return tokens.float() / (bins - 1)


def box_tokens(boxes: Tensor, bins: int) -> Tensor:
    """Tokens of boxes, which are first clipped to the unit square.

    Args:
        boxes: left, top, width and height, (B, 4).
        bins: number of bins, at least 2.

    Returns:
        Tokens of center x, center y, width and height, (B, 4) int64.

    Raises:
        ValueError: fewer than 2 bins.
    """
    return quantize(to_center(clip_boxes(boxes)), bins)


def token_boxes(tokens: Tensor, bins: int) -> Tensor:
    """Boxes (left, top, width, height), (B, 4) float32, that tokens (B, 4) encode."""
    return to_corner(dequantize(tokens, bins))


def start_token(bins: int) -> int:
    """Token that begins each sequence."""
    return bins + 1


def end_token(bins: int) -> int:
    """Token that ends each sequence."""
    return bins


def teacher_forcing(tokens: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a decoder that is trained with teacher forcing.

    Args:
        tokens: tokens of the coordinates, (B, 4).
        bins: number of bins.

    Returns:
        Inputs (start, t1, t2, t3, t4) and targets (t1, t2, t3, t4, end), (B, 5) each.
    """
    start = torch.full_like(tokens[:, :1], start_token(bins))
    end = torch.full_like(tokens[:, :1], end_token(bins))
    return torch.cat([start, tokens], 1), torch.cat([tokens, end], 1)


def center_window(bins: int, device: torch.device | None = None) -> Tensor:
    """Hann window over the bins, ``sin^2(pi i / (bins - 1))``, (bins,) float32.

    The likelihoods of the box center are multiplied by the window. It favors positions near the
    middle of the crop, where the object was in the previous frame.
    """
    _require_bins(bins)
    return torch.hann_window(bins, periodic=False, device=device)


def _require_bins(bins: int) -> None:
    if bins < 2:
        raise ValueError(f"Box coordinates need bins >= 2, got {bins}.")


__getattr__ = old_names(__name__)
