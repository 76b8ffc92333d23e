"""Multi-crop: a few large and many small augmented views of a clip, the same in all its frames."""

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
_TRIES = 10  # at a place of the wanted area and ratio within the frame
_NUMBERS = 12 + 2 * _TRIES  # that are drawn for a view


@renamed_keys(grey="gray", solarise="solarize")
@dataclass(frozen=True, kw_only=True)
class MultiCrop:
    """Two large views and ``smalls`` small ones of a clip (6.5.2), with DINO's augmentations.

    The parameters of a view are drawn once, and are the same in all frames, so that a patch of one
    frame corresponds to the patch at its place in another. They follow from a key alone: no global
    generator is read or moved. A view's parameters do not depend on how many views there are.

    Args:
        large: side of the large views in pixels.
        small: side of the small ones.
        smalls: how many small ones.
        large_scale: of the frame's area, the share that a large view shows, drawn uniformly.
        small_scale: the same for small ones.
        ratio: of a view's width to its height in the frame, drawn uniformly in the logarithm.
        flip: probability of swapping left and right.
        jitter: largest change of brightness, contrast and saturation, as shares, and of the hue, as
            a share of the color wheel; the four are applied in a random order.
        jitter_p: probability of jitter.
        gray: probability of losing colors.
        blur: probability of blurring the first large view, the second, and a small one.
        sigma: standard deviation of the blur in pixels, drawn uniformly.
        solarize: the same for inverting what is 128 or brighter.

    Raises:
        ValueError: a setting that is not allowed; it says which are.
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
            key: all draws depend on it.

        Returns:
            ``large`` (2, T, 3, large, large) and, unless there are none, ``small``
            (smalls, T, 3, small, small); uint8.

        Raises:
            ValueError: a clip of another shape or type.
        """
        if clip.dtype != torch.uint8 or clip.dim() != 4 or clip.shape[1] != 3 or not clip.numel():
            raise ValueError(
                f"MultiCrop needs a clip (T, 3, H, W) of uint8, got {tuple(clip.shape)} of "
                f"{clip.dtype}."
            )
        views = [view(clip) for view in self.draw(clip.shape[-2], clip.shape[-1], key)]
        crops = {"large": torch.stack(views[:LARGE_VIEWS])}
        if self.smalls:
            crops["small"] = torch.stack(views[LARGE_VIEWS:])
        return crops

    def draw(self, height: int, width: int, key: int) -> list[View]:
        """The parameters of the two large views and then the small ones.

        Args:
            height: of the clip's frames.
            width: of the clip's frames.
            key: see :meth:`__call__`.
        """
        return [
            self._view(height, width, min(number, LARGE_VIEWS), sampling.generators(key, number))
            for number in range(LARGE_VIEWS + self.smalls)
        ]

    def _view(self, height: int, width: int, kind: int, draws: sampling.Generators) -> View:
        """One view; of kind 0 and 1, the large ones, or 2."""
        # all that any setting needs, so that one setting does not change the draws of another
        order = sampling.permutation(len(self.jitter), draws.local).tolist()
        drawn = sampling.uniform((_NUMBERS,), draws.local).tolist()
        flip, jitter, gray, blur, sigma, solarize, *factors = drawn[: 6 + len(self.jitter)]
        scale = self.large_scale if kind < LARGE_VIEWS else self.small_scale
        place = _place(height, width, scale, self.ratio, drawn[6 + len(self.jitter) :])
        return View(
            *place,
            size=self.large if kind < LARGE_VIEWS else self.small,
            flip=flip < self.flip,
            jitter=self._factors(order, factors) if jitter < self.jitter_p else (),
            gray=gray < self.gray,
            sigma=_between(*self.sigma, sigma) if blur < self.blur[kind] else 0.0,
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
    """A MultiCrop, itself or from its keys.

    Raises:
        KeyError: an unknown key, with the nearest known one.
        ValueError: see MultiCrop.
    """
    if isinstance(views, MultiCrop):
        return views
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in (views or {}).items()}
    crops: MultiCrop = build({**settings, "type": MultiCrop})
    return crops


def _place(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    drawn: list[float],
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part of a frame.

    The first of ten draws of area and ratio that fits; else the largest central part whose ratio is
    allowed.
    """
    for share, aspect in zip(drawn[2::2], drawn[3::2], strict=False):
        area = height * width * _between(*scale, share)
        root = math.exp(_between(math.log(ratio[0]), math.log(ratio[1]), aspect) / 2)
        high, wide = round(area**0.5 / root), round(area**0.5 * root)
        if 0 < high <= height and 0 < wide <= width:
            top, left = int(drawn[0] * (height - high + 1)), int(drawn[1] * (width - wide + 1))
            return top, left, high, wide
    high, wide = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    high, wide = max(1, high), max(1, wide)
    return (height - high) // 2, (width - wide) // 2, high, wide


def _between(low: float, high: float, drawn: float) -> float:
    return low + (high - low) * drawn
