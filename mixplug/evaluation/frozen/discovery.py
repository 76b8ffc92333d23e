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
from mixplug.evaluation.results import Tick, no_progress
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
from mixplug.weights.preprocessing import NORMALIZATION

_RED, _GREEN = (255, 0, 0), (0, 200, 0)
_TINT = 0.45  # of red where the mask is


@dataclass(frozen=True)
class Discovery:
    """Mask and box of one image, in pixels of the original image.

    Attributes:
        name: of the image.
        mask: P, (H, W) bool.
        box: (4,) float64, left, top, right, bottom.
        jaccard: Jaccard similarity of P and the pixels of all objects.
        iou: largest IoU of the box and a ground-truth box.
        truths: ground-truth boxes, (n, 4).
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
    keys = tokens.keys.transpose(1, 2).flatten(2)[0, tokens.prefix :]  # heads concatenated
    return lost_box(keys, tokens.grid)


# From the tokens of an image and its mask to a box in patches.
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
    tick: Tick = no_progress,
) -> dict[str, Any]:
    """Find an object in each image, and compare it with the annotation.

    The mask P keeps a share ``mass`` of the attention of the class token in the last block, as a
    mean over heads. The Jaccard similarity compares P, at the size of the image, with the pixels of
    objects of any class; void pixels are ignored. It is averaged over images, as in DINO, not over
    objects. CorLoc counts the ground-truth boxes of all objects, including difficult and truncated
    ones. Images are resized to the nearest multiple of the patch size, since a padded border would
    attract attention.

    Args:
        frozen: the network.
        images: see :func:`mixplug.data.voc.voc2012`.
        boxes: 'attention' takes the bounding box of the largest connected component of P; 'lost'
            computes it from the keys, see :func:`mixplug.functional.discovery.lost_box`.
        mass: share of the attention that the mask keeps.
        size: shorter side in pixels; None keeps the size of the image.
        save: number of images to draw, from the first one on.
        out: folder for the drawn images; required if there are any.
        tick: progress callback.

    Returns:
        ``jaccard`` and ``corloc`` in percent, ``images`` with the values of each image, and the
        settings.

    Raises:
        ValueError: an invalid setting, a damaged image file, or no image.
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
        "colors": frozen.images.line(NORMALIZATION),
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
            f"{image.mask} has {tuple(truth.shape)} pixels, but its image has "
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
    """Input (1, 3, H', W') of the network: each side is the nearest multiple of the patch size."""
    scale = 1.0 if size is None else size / min(pixels.shape[1:])
    fitted = [
        max(1, round(side * scale / part)) * part
        for side, part in zip(pixels.shape[1:], frozen.encoder.patch, strict=True)
    ]
    ops = optional("torchvision.transforms.v2.functional", "timm", "Object discovery")
    resized = ops.resize(pixels, fitted, ops.InterpolationMode.BICUBIC, antialias=True)
    return frozen.normalized(resized[None])


def _draw(pixels: Tensor, found: Discovery, out: Path) -> None:
    """Save a PNG of the image: mask and box in red, ground-truth boxes in green."""
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
