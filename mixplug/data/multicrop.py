"""Multi-crop: a few large and many small augmented views of a clip, equal in all its frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import build
from mixplug.data.view import View
from mixplug.optional import optional
from mixplug.renamed import renamed_keys

LARGE_VIEWS = 2
_TRIES = 10  # draws of area and ratio until a crop fits into the frame
_NUMBERS = 12 + 2 * _TRIES  # random numbers per view


@renamed_keys(grey="gray", solarise="solarize")
@dataclass(frozen=True, kw_only=True)
class MultiCrop:
    """Two large views and ``smalls`` small views of a clip (6.5.2), with DINO's augmentations.

    The parameters of a view are drawn once and are the same in all frames, so a patch of one frame
    corresponds to the patch at the same position in another frame. The parameters depend on a key
    alone: global random generators are neither read nor changed. They do not depend on the number
    of views.

    Args:
        large: side of the large views in pixels.
        small: side of the small views in pixels.
        smalls: number of small views.
        large_scale: (low, high) share of the frame's area that a large view shows, drawn uniformly.
        small_scale: the same for small views.
        ratio: (low, high) ratio of width to height of a view in the frame, drawn log-uniformly.
        flip: probability of a horizontal flip.
        jitter: largest change of brightness, contrast and saturation, as shares, and of the hue, as
            a share of the color wheel; the four are applied in random order.
        jitter_p: probability of color jitter.
        gray: probability of conversion to gray.
        blur: probability of blur for the first large view, the second large view, and a small view.
        sigma: (low, high) standard deviation of the blur in pixels, drawn uniformly.
        solarize: probability of solarization (values of 128 or more are inverted) for the first
            large view, the second large view, and a small view.

    Raises:
        ValueError: an invalid setting; the message names the allowed values.
    """

    large: int = 224
    small: int = 96
    smalls: int = 6
    large_scale: tuple[float, float] = (0.4, 1.0)
    small_scale: tuple[float, float] = (0.05, 0.4)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_p: float = 0.8
    gray: float = 0.2
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: tuple[float, float, float] = (0.0, 0.2, 0.0)

    def __post_init__(self) -> None:
        optional("torchvision.transforms.v2.functional", "video", "MultiCrop")  # before any fork
        shares = (self.flip, self.jitter_p, self.gray, *self.blur, *self.solarize)
        scales = (self.large_scale, self.small_scale)
        checks = {
            "large, small >= 1 and smalls >= 0": min(self.large, self.small) >= 1
            and self.smalls >= 0,
            "scales with 0 < low <= high <= 1": all(0 < a <= b <= 1 for a, b in scales),
            "a ratio with 0 < low <= high": 0 < self.ratio[0] <= self.ratio[1],
            "a sigma with 0 < low <= high": 0 < self.sigma[0] <= self.sigma[1],
            "probabilities in [0, 1]": all(0 <= p <= 1 for p in shares),
            "three probabilities in blur and in solarize": len(self.blur) == 3
            and len(self.solarize) == 3,
            "four numbers in jitter, in [0, 1], the last in [0, 0.5]": len(self.jitter) == 4
            and all(0 <= j <= 1 for j in self.jitter)
            and self.jitter[3] <= 0.5,
        }
        for needed, holds in checks.items():
            if not holds:
                raise ValueError(f"MultiCrop needs {needed}, got {self}.")

    def __call__(self, clip: Tensor, key: int) -> dict[str, Tensor]:
        """The views of a clip.

        Args:
            clip: (T, 3, H, W) uint8.
            key: integer that determines all random draws.

        Returns:
            ``large`` (2, T, 3, large, large) and, if ``smalls`` > 0, ``small`` (smalls, T, 3,
            small, small); uint8.

        Raises:
            ValueError: a clip with another shape or type.
        """
        if clip.dtype != torch.uint8 or clip.dim() != 4 or clip.shape[1] != 3 or not clip.numel():
            raise ValueError(
                f"MultiCrop needs a uint8 clip (T, 3, H, W), got {tuple(clip.shape)} of "
                f"{clip.dtype}."
            )
        views = [view(clip) for view in self.draw(clip.shape[-2], clip.shape[-1], key)]
        crops = {"large": torch.stack(views[:LARGE_VIEWS])}
        if self.smalls:
            crops["small"] = torch.stack(views[LARGE_VIEWS:])
        return crops

    def draw(self, height: int, width: int, key: int) -> list[View]:
        """The parameters of the two large views, then of the small views.

        Args:
            height: height of the clip's frames.
            width: width of the clip's frames.
            key: see :meth:`__call__`.
        """
        return [
            self._view(height, width, min(number, LARGE_VIEWS), sampling.generators(key, number))
            for number in range(LARGE_VIEWS + self.smalls)
        ]

    def _view(self, height: int, width: int, kind: int, draws: sampling.Generators) -> View:
        """Draw one view; ``kind`` is 0 or 1 for the two large views, 2 for a small view."""
        # Always draw the numbers of all settings, so one setting does not change another's draws.
        order = sampling.permutation(len(self.jitter), draws.local).tolist()
        drawn = sampling.uniform((_NUMBERS,), draws.local).tolist()
        flip, jitter, gray, blur, sigma, solarize, *factors = drawn[: 6 + len(self.jitter)]
        scale = self.large_scale if kind < LARGE_VIEWS else self.small_scale
        place = _draw_crop(height, width, scale, self.ratio, drawn[6 + len(self.jitter) :])
        return View(
            *place,
            size=self.large if kind < LARGE_VIEWS else self.small,
            flip=flip < self.flip,
            jitter=self._factors(order, factors) if jitter < self.jitter_p else (),
            gray=gray < self.gray,
            sigma=_interpolate(*self.sigma, sigma) if blur < self.blur[kind] else 0.0,
            solarize=solarize < self.solarize[kind],
        )

    def _factors(self, order: list[int], drawn: list[float]) -> tuple[tuple[str, float], ...]:
        names = ("brightness", "contrast", "saturation", "hue")
        centers = (1.0, 1.0, 1.0, 0.0)
        return tuple(
            (names[i], centers[i] + self.jitter[i] * (2 * drawn[i] - 1))
            for i in order
            if self.jitter[i]
        )


def multicrop_of(views: MultiCrop | Mapping[str, Any] | None) -> MultiCrop:
    """Return a MultiCrop as it is, or build one from a dict of its keys.

    Raises:
        KeyError: an unknown key; the message suggests the most similar known key.
        ValueError: see MultiCrop.
    """
    if isinstance(views, MultiCrop):
        return views
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in (views or {}).items()}
    crops: MultiCrop = build({**settings, "type": MultiCrop})
    return crops


def _draw_crop(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    drawn: list[float],
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop of a frame.

    This is the first of ten draws of area and ratio that fits into the frame. If none fits, it is
    the largest central crop with an allowed ratio.
    """
    for share, aspect in zip(drawn[2::2], drawn[3::2], strict=False):
        area = height * width * _interpolate(*scale, share)
        root = math.exp(_interpolate(math.log(ratio[0]), math.log(ratio[1]), aspect) / 2)
        high, wide = round(area**0.5 / root), round(area**0.5 * root)
        if 0 < high <= height and 0 < wide <= width:
            top, left = int(drawn[0] * (height - high + 1)), int(drawn[1] * (width - wide + 1))
            return top, left, high, wide
    high, wide = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    high, wide = max(1, high), max(1, wide)
    return (height - high) // 2, (width - wide) // 2, high, wide


def _interpolate(low: float, high: float, drawn: float) -> float:
    return low + (high - low) * drawn
