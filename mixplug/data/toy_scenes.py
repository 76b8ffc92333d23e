"""A toy data set for detection, instance segmentation and semantic segmentation of digits.

It is composed of data that installed packages contain. The format is that of COCO, plus semantic
maps. :mod:`mixplug.data.digit_scenes` describes a scene and its annotations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mixplug.data.digit_scenes import CLASSES, SMALLEST, SPLITS, Scene, scenes
from mixplug.optional import optional

SEMANTIC_CLASSES = ("background", *CLASSES)
_SETTINGS = "scenes.json"

Tick = Callable[[int], None]


def write_scenes(
    folder: str | Path,
    train: int = 400,
    val: int = 100,
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
    digits: int = 10,
    per_image: tuple[int, int] = (1, 4),
    tick: Tick | None = None,
) -> Path:
    """Write a data set in COCO's format, plus semantic maps.

    The files are ``train/*.jpg``, ``val/*.jpg``, ``annotations/instances_{train,val}.json``
    (category ids 1 to 10 are '0' to '9', masks are run lengths) and
    ``annotations/semantic/{train,val}/*.png`` (values are indices into :data:`SEMANTIC_CLASSES`).
    Every scene depends on ``seed``, its split and its number alone. A complete folder is not
    changed; an incomplete one is completed.

    Args:
        folder: folder to write to; it is created if it does not exist.
        train: number of training scenes.
        val: number of validation scenes.
        size: (height, width) of a scene in pixels.
        seed: any integer.
        digits: number of classes: the digits '0' to ``digits - 1``.
        per_image: smallest and largest number of digits in a scene; a scene has fewer if there is
            no room.
        tick: function that is called with the number of scenes that were completed.

    Returns:
        ``folder``.

    Raises:
        ValueError: a setting out of range, or a folder that has scenes with other settings.
        ImportError: scikit-learn, scikit-video, PyAV, Pillow or pycocotools is not installed.
    """
    settings = _check_settings(train, val, size, seed, digits, per_image)
    folder = Path(folder)
    _write_settings(folder, settings)
    for split in SPLITS:
        count = settings[split]
        if not _complete(folder, split, count):
            new_scenes = scenes(split, count, size, seed, digits, per_image)
            _write_split(folder, split, new_scenes, settings, tick)
        elif tick is not None:
            tick(count)
    return folder


def _check_settings(
    train: int, val: int, size: Sequence[int], seed: int, digits: int, per_image: Sequence[int]
) -> dict[str, Any]:
    few, many = per_image
    for needed, value, valid in (
        ("train and val >= 1", (train, val), min(train, val) >= 1),
        (f"size = (height, width) >= {SMALLEST}", tuple(size), min(size) >= SMALLEST),
        (f"digits in 1 to {len(CLASSES)}", digits, 1 <= digits <= len(CLASSES)),
        ("per_image = (least, most), 1 <= least <= most", tuple(per_image), 1 <= few <= many),
    ):
        if not valid:
            raise ValueError(f"Toy scenes need {needed}, got {value}.")
    return {
        "train": train,
        "val": val,
        "size": list(size),
        "seed": seed,
        "digits": digits,
        "per_image": [few, many],
    }


def _write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into the folder; refuse a folder with other scenes or other data."""
    file = folder / _SETTINGS
    if file.exists():
        found = json.loads(file.read_text())
        if found != settings:
            raise ValueError(
                f"{folder} has scenes with other settings: expected {settings}, got {found}."
            )
        return
    existing = [name for name in (*SPLITS, "annotations") if (folder / name).exists()]
    if existing:
        raise ValueError(
            f"{folder} already has {', '.join(existing)} of another data set. Choose a new folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    _replace(file, json.dumps(settings).encode())


def _names(count: int) -> list[str]:
    return [f"{number:05}" for number in range(1, count + 1)]


def _list(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"instances_{split}.json"


def _pair(folder: Path, split: str, name: str) -> tuple[Path, Path]:
    """Paths of the image and the semantic map of a scene."""
    maps = folder / "annotations" / "semantic" / split
    return folder / split / f"{name}.jpg", maps / f"{name}.png"


def _complete(folder: Path, split: str, count: int) -> bool:
    files = (file for name in _names(count) for file in _pair(folder, split, name))
    return _list(folder, split).exists() and all(file.exists() for file in files)


def _write_split(
    folder: Path,
    split: str,
    new_scenes: Iterator[Scene],
    settings: Mapping[str, Any],
    tick: Tick | None,
) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, scene in zip(_names(settings[split]), new_scenes, strict=True):
        image, semantic = _pair(folder, split, name)
        height, width = scene.owner.shape
        number = len(images) + 1
        images.append(
            {
                "id": number,
                "file_name": image.name,
                "height": height,
                "width": width,
                "background": scene.background,
            }
        )
        for found in _annotations(scene):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **found})
        _write_image(image, scene.image, quality=95, subsampling=0)
        _write_image(semantic, scene.semantic)
        if tick is not None:
            tick(1)
    content = {
        "info": {"description": "Digits on a street", **settings},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": 1 + k, "name": CLASSES[k], "supercategory": "digit"}
            for k in range(settings["digits"])
        ],
    }
    _replace(
        _list(folder, split), json.dumps(content).encode()
    )  # written last: this file marks the split as complete


def _annotations(scene: Scene) -> Iterator[dict[str, Any]]:
    coder = optional("pycocotools.mask", "mmdet", "Run lengths of masks")
    for number, (k, scan) in enumerate(zip(scene.classes, scene.scans, strict=True)):
        mask = scene.owner == number
        rows, columns = (mask.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
        left, top = columns[0], rows[0]
        runs = coder.encode(mask.byte().T.contiguous().numpy().T)  # needs column-major order
        yield {
            "category_id": 1 + k,
            "bbox": [left, top, columns[-1] + 1 - left, rows[-1] + 1 - top],
            "area": int(mask.sum()),
            "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
            "iscrowd": 0,
            "scan": scan,
        }


def _write_image(file: Path, pixels: Tensor, **options: Any) -> None:
    if file.exists():
        return
    pillow = optional("PIL.Image", "video", "Writing images")
    part = file.with_name(f"part-{file.name}")
    part.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(pixels.numpy()).save(part, **options)
    part.replace(file)


def _replace(file: Path, content: bytes) -> None:
    """Write a file so that it is either complete or absent."""
    part = file.with_name(f"part-{file.name}")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    part.replace(file)
