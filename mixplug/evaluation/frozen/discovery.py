"""Unsupervised object discovery on VOC 2012 with frozen features (6.5.3, Tables 6.5b and 6.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.data.voc import VOCImage
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.results import Tick, unseen
from mixplug.functional.discovery import (
    attention_box,
    attention_mask,
    best_iou,
    corloc,
    jaccard,
    lost_box,
)
from mixplug.functional.track import cls_attention
from mixplug.models.vit.encoder_base import Tokens
from mixplug.optional import optional

_RED, _GREEN = (255, 0, 0), (0, 200, 0)
_TINT = 0.45  # of red where the mask is


@dataclass(frozen=True)
class Discovery:
    """What was found in one image, in its own pixels.

    Attributes:
        name: of the image.
        mask: P, (H, W) bool.
        box: (4,) float64, left, top, right, bottom.
        jaccard: of P and the pixels of any object.
        iou: of the box and the true box that it fits best.
        truths: the true boxes, (n, 4).
    """

    name: str
    mask: Tensor = field(repr=False)
    box: Tensor = field(repr=False)
    jaccard: float
    iou: float
    truths: Tensor = field(repr=False)


def _attended(tokens: Tokens, mask: Tensor) -> Tensor:
    return attention_box(mask, tokens.grid)


def _lost(tokens: Tokens, mask: Tensor) -> Tensor:
    keys = tokens.keys.transpose(1, 2).flatten(2)[0, tokens.prefix :]  # all heads side by side
    return lost_box(keys, tokens.grid)


# How a box is made, in patches, of an image's tokens and of its mask.
BOXES: Mapping[str, Callable[[Tokens, Tensor], Tensor]] = MappingProxyType(
    {"attention": _attended, "lost": _lost}
)


def discover(
    frozen: Frozen,
    images: Sequence[VOCImage],
    boxes: str = "attention",
    mass: float = 0.8,
    size: int | None = None,
    save: int = 0,
    out: Path | None = None,
    tick: Tick = unseen,
) -> dict[str, Any]:
    """Find an object in each image, and compare it with what is there.

    The mask P keeps ``mass`` of the class token's attention in the last block, averaged over heads.
    J compares it, at the image's own size, with the pixels of objects of any class; void pixels
    count in neither. It is the mean over images, as DINO takes it, not over objects. CorLoc counts
    true boxes of all objects, difficult and truncated ones too. Images are resized to the nearest
    multiple of the patch, so no border is added that would be attended to.

    Args:
        frozen: the network.
        images: see :func:`mixplug.data.voc.voc2012`.
        boxes: 'attention' is around the largest connected component of P; 'lost' is LOST's of the
            keys, see :func:`mixplug.functional.discovery.lost_box`.
        mass: share of the attention that is kept.
        size: of the shorter side in pixels; None leaves images as large as they are.
        save: how many images are drawn, the first ones.
        out: folder for them, needed if there are any.
        tick: called after every image.

    Returns:
        ``jaccard`` and ``corloc`` in percent, ``images`` with the values of each, and the settings.

    Raises:
        ValueError: another setting; a damaged file of an image; no image.
    """
    if boxes not in BOXES:
        raise ValueError(f"discover needs boxes in {tuple(BOXES)}, got {boxes!r}.")
    if not images or (save and out is None):
        raise ValueError(f"discover needs images, and a folder to save them in, got {out}.")
    found = []
    for number, image in enumerate(images):
        tick(number, len(images), "discovering")
        pixels = image.pixels()
        found.append(_in_image(frozen, image, pixels, BOXES[boxes], mass, size))
        if number < save and out is not None:
            _draw(pixels, found[-1], out)
    tick(len(images), len(images), "discovering")
    overall = corloc(torch.stack([one.box for one in found]), [one.truths for one in found])
    return {
        "jaccard": 100 * sum(one.jaccard for one in found) / len(found),
        "corloc": 100 * overall,
        "boxes": boxes,
        "mass": mass,
        "size": size,
        "images": [
            {"name": one.name, "jaccard": one.jaccard, "iou": one.iou, "box": one.box.tolist()}
            for one in found
        ],
    }


def _in_image(
    frozen: Frozen,
    image: VOCImage,
    pixels: Tensor,
    box_of: Callable[[Tokens, Tensor], Tensor],
    mass: float,
    size: int | None,
) -> Discovery:
    truth, void = image.objects()
    if truth.shape != pixels.shape[1:]:
        raise ValueError(
            f"{image.mask} is of {tuple(truth.shape)} pixels, its image of "
            f"{tuple(pixels.shape[1:])}."
        )
    height, width = pixels.shape[1:]
    with torch.no_grad():
        tokens = frozen.encoder.tokens(_fitted(frozen, pixels, size))
    attention = cls_attention(tokens.queries, tokens.keys, tokens.prefix)
    cells = attention_mask(attention, mass)[0]
    rows, columns = tokens.grid
    patch = torch.tensor([width / columns, height / rows] * 2, dtype=torch.float64)
    box = box_of(tokens, cells).cpu() * patch
    whole = cells.cpu().unflatten(0, tokens.grid)[None, None].float()
    mask = F.interpolate(whole, (height, width), mode="nearest-exact")[0, 0] > 0
    truths = image.boxes()
    value = float(jaccard(mask, truth, void))
    return Discovery(image.name, mask, box, value, float(best_iou(box, truths)), truths)


def _fitted(frozen: Frozen, pixels: Tensor, size: int | None) -> Tensor:
    """(1, 3, H', W') for the network: each side the nearest multiple of the patch."""
    scale = 1.0 if size is None else size / min(pixels.shape[1:])
    fitted = [
        max(1, round(side * scale / part)) * part
        for side, part in zip(pixels.shape[1:], frozen.encoder.patch, strict=True)
    ]
    ops = optional("torchvision.transforms.v2.functional", "timm", "Object discovery")
    resized = ops.resize(pixels, fitted, ops.InterpolationMode.BICUBIC, antialias=True)
    return frozen.normalized(resized[None])


def _draw(pixels: Tensor, found: Discovery, out: Path) -> None:
    """A PNG: the image and the mask in red, the box in red, true boxes in green."""
    pil, draw = (optional(f"PIL.{name}", "timm", "Pictures") for name in ("Image", "ImageDraw"))
    shown = pixels.permute(1, 2, 0).float()
    shown[found.mask] = (1 - _TINT) * shown[found.mask] + _TINT * torch.tensor(_RED)
    picture = pil.fromarray(shown.round().byte().numpy())
    pen = draw.Draw(picture)
    for box, color in [(box, _GREEN) for box in found.truths] + [(found.box, _RED)]:
        left, top, right, bottom = box.round().long().tolist()
        pen.rectangle((left, top, right - 1, bottom - 1), outline=color, width=3)
    out.mkdir(parents=True, exist_ok=True)
    picture.save(out / f"{found.name}.png")
