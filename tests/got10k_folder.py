"""A GOT-10k of textured squares that move over textured backgrounds, in the published layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

SIZE = (96, 128)  # height, width

META = """[METAINFO]
url: https://example.org/watch?v=a=b%20c
begin: 00:00:01
anno_fps: 10Hz
object_class: {object_class}
motion_class: {motion_class}
resolution: (128, 96)
"""


def moving_square(
    frames: int, start: Sequence[float], step: Sequence[float], seed: int = 0, side: int = 16
) -> tuple[list[Tensor], Tensor]:
    """Frames (3, H, W) uint8 and boxes (T, 4): a bright checkered square over dark noise."""
    source = torch.Generator().manual_seed(seed)
    ground = torch.randint(0, 90, (3, *SIZE), generator=source, dtype=torch.uint8)
    cells = torch.arange(side) // 4
    checks = ((cells[:, None] + cells) % 2 * 90 + 160).byte()
    pictures, boxes = [], []
    for t in range(frames):
        left, top = (round(s + t * d) for s, d in zip(start, step, strict=True))
        picture = ground.clone()
        picture[:, top : top + side, left : left + side] = checks
        pictures.append(picture)
        boxes.append([left, top, side, side])
    return pictures, torch.tensor(boxes, dtype=torch.float64)


def write_sequence(
    folder: Path,
    pictures: Sequence[Tensor],
    boxes: Tensor,
    object_class: str = "square",
    motion_class: str = "sliding",
    absent: Sequence[int] = (),
    test: bool = False,
) -> None:
    """Write one sequence, as JPEGs of the best quality."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures, 1):
        to_pil_image(picture).save(folder / f"{number:08d}.jpg", quality=100, subsampling=0)
    rows = boxes[:1] if test else boxes
    lines = [",".join(f"{n:.4f}" for n in row) for row in rows.tolist()]
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    if test:
        return
    gone = [int(t in absent) for t in range(len(boxes))]
    (folder / "absence.label").write_text("".join(f"{g}\n" for g in gone))
    (folder / "cover.label").write_text("".join(f"{8 * (1 - g)}\n" for g in gone))
    meta = META.format(object_class=object_class, motion_class=motion_class)
    (folder / "meta_info.ini").write_text(meta)


def write_split(
    root: Path,
    split: str,
    sequences: Sequence[tuple[list[Tensor], Tensor]],
    classes: Callable[[int], str] = lambda _index: "square",
    absent: Sequence[int] = (),
) -> list[str]:
    """A split with list.txt; gives the names."""
    names = [f"GOT-10k_{split.title()}_{i:06d}" for i in range(1, len(sequences) + 1)]
    for index, (name, (pictures, boxes)) in enumerate(zip(names, sequences, strict=True)):
        folder = root / split / name
        write_sequence(folder, pictures, boxes, classes(index), absent=absent, test=split == "test")
    (root / split / "list.txt").write_text("\n".join(names) + "\n")
    return names
