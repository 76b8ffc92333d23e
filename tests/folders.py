"""Miniature image data sets on disk, in the published layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_PALETTE = [value for i in range(256) for value in (i, 255 - i, (7 * i) % 256)]


@dataclass(frozen=True)
class Scene:
    """An image of VOC: gray levels (H, W), class numbers (H, W), boxes as in the XML."""

    levels: np.ndarray
    mask: np.ndarray
    boxes: Sequence[tuple[float, float, float, float]]


def voc(root: Path, scenes: Mapping[str, Scene], masks: str = "SegmentationClass") -> Path:
    """Write VOCdevkit/VOC2012 below ``root``."""
    home = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", masks, "ImageSets/Segmentation"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    for name, scene in scenes.items():
        picture = np.repeat(scene.levels[..., None], 3, 2).astype(np.uint8)
        Image.fromarray(picture).save(home / "JPEGImages" / f"{name}.jpg", quality=100)
        mask = Image.fromarray(scene.mask.astype(np.uint8), "P")
        mask.putpalette(_PALETTE)
        mask.save(home / masks / f"{name}.png")
        (home / "Annotations" / f"{name}.xml").write_text(_annotation(name, scene.boxes))
    listed = home / "ImageSets" / "Segmentation" / "val.txt"
    listed.write_text("".join(f"{name}\n" for name in scenes))
    return home


def _annotation(name: str, boxes: Sequence[Sequence[float]]) -> str:
    """Each object has a part with a box of its own, like heads and hands of persons in VOC."""
    part = (
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
        "<ymax>2</ymax></bndbox></part>"
    )
    objects = "".join(
        f"<object><name>person</name>{part}<difficult>{i % 2}</difficult><bndbox><xmax>{x1}</xmax>"
        f"<xmin>{x0}</xmin><ymax>{y1}</ymax><ymin>{y0}</ymin></bndbox></object>"
        for i, (x0, y0, x1, y1) in enumerate(boxes)
    )
    return f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>\n"


def classes(
    root: Path, split: str, images: Mapping[str, Sequence[np.ndarray]], suffix: str = ".png"
) -> None:
    """Write root/split/CLASS/0.png and so on, from uint8 arrays (H, W, 3)."""
    for name, pictures in images.items():
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / f"{number}{suffix}")


def noisy(color: Sequence[int], count: int, seed: int, side: int = 40) -> list[np.ndarray]:
    """Images of one color with some noise."""
    drawn = np.random.default_rng(seed).integers(-20, 21, (count, side, side, 3))
    return list((np.asarray(color) + drawn).clip(0, 255).astype(np.uint8))


def office_home(root: Path, count: int, classes: Sequence[str]) -> Path:
    """Write root/DOMAIN/CLASS/00001.jpg and so on, ``count`` each, all the same gray image."""
    first = root / "gray.jpg"
    root.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (128, 128, 128)).save(first)
    for domain in ("Art", "Clipart", "Product", "Real World"):
        for name in classes:
            folder = root / domain / name
            folder.mkdir(parents=True)
            for number in range(1, count + 1):
                (folder / f"{number:05}.jpg").write_bytes(first.read_bytes())
    first.unlink()
    return root
