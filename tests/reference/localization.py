"""Maps, components, boxes and MaxBoxAcc by loops over pixels and thresholds, in plain Python."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

Box = tuple[int, int, int, int]


def class_activation_map(maps: Tensor, weight: Tensor, classes: Tensor) -> list[list[list[float]]]:
    images, channels, height, width = maps.shape
    return [
        [
            [
                sum(float(weight[classes[b], c] * maps[b, c, y, x]) for c in range(channels))
                for x in range(width)
            ]
            for y in range(height)
        ]
        for b in range(images)
    ]


def components(inside: set[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """Components: sets of pixels (row, column) that touch, also at corners, in row-major order."""
    left, found = set(inside), []
    for start in sorted(inside):
        if start not in left:
            continue
        left.discard(start)
        part, front = {start}, [start]
        while front:
            row, column = front.pop()
            for near in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.discard(near)
                    part.add(near)
                    front.append(near)
        found.append(part)
    return found


def boxes(heat: Tensor, threshold: float) -> list[Box]:
    """Boxes of the components, the largest first; ties are in row-major order."""
    rows = heat.tolist()
    inside = {(y, x) for y, row in enumerate(rows) for x, v in enumerate(row) if v > threshold}
    parts = sorted(components(inside), key=lambda part: -len(part))
    return [
        (
            min(x for _, x in part), min(y for y, _ in part),
            max(x for _, x in part) + 1, max(y for y, _ in part) + 1,
        )
        for part in parts
    ]  # fmt: skip


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def overlap(heat: Tensor, truths: Tensor, threshold: float, every: bool) -> float:
    """IoU of the largest component's box, or with ``every`` of any box, with its best true box."""
    found = boxes(heat, threshold)
    found = found if every else found[:1]
    return max((iou(box, truth) for box in found for truth in truths.tolist()), default=0.0)


def max_box_accuracy(
    heat: Tensor, truths: Sequence[Tensor], thresholds: Sequence[float], least: float, every: bool
) -> tuple[float, float]:
    """Accuracy at the best threshold, and this threshold; ties go to the lowest."""
    best, at = -1.0, 0.0
    for threshold in thresholds:
        hits = [
            overlap(one, boxes, threshold, every) >= least
            for one, boxes in zip(heat, truths, strict=True)
        ]
        if sum(hits) / len(hits) > best:
            best, at = sum(hits) / len(hits), threshold
    return best, at
