"""J and F by hand, contours pixel by pixel, and F against a dilation by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from mixplug.functional.vos import contour, contour_accuracy, course, region_similarity


def boxes(size: tuple[int, int], *corners: tuple[int, int, int, int]) -> Tensor:
    """True inside (top, left, height, width)."""
    mask = torch.zeros(size, dtype=torch.bool)
    for top, left, height, width in corners:
        mask[top : top + height, left : left + width] = True
    return mask


def blobs(count: int, size: tuple[int, int]) -> Tensor:
    noise = torch.randn(count, 1, *size)
    smooth = torch.nn.functional.avg_pool2d(noise, 7, stride=1, padding=3)[:, 0]
    return smooth > 0.05


def test_region_by_hand() -> None:
    """A square of 4 x 4 moved by two pixels: 8 of 24 pixels are in both masks."""
    size = (10, 12)
    square, empty = boxes(size, (2, 2, 4, 4)), boxes(size)
    assert float(region_similarity(square, boxes(size, (2, 4, 4, 4)))) == pytest.approx(8 / 24)
    assert float(region_similarity(square, boxes(size, (4, 4, 4, 4)))) == pytest.approx(4 / 28)
    found = region_similarity(
        torch.stack([square, square, empty, empty]), torch.stack([square, empty, square, empty])
    )
    assert found.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_contour_by_hand() -> None:
    """A ring around a 2 x 2 square, shifted half a pixel up and left; none at the frame border."""
    drawn = ["......", ".###..", ".#.#..", ".###..", "......"]
    ring = contour(boxes((5, 6), (2, 2, 2, 2)))
    assert ["".join(".#"[int(v)] for v in row) for row in ring] == drawn
    assert not contour(boxes((5, 6), (0, 0, 5, 6))).any()
    half = contour(boxes((5, 6), (0, 0, 5, 3)))
    assert torch.equal(half, boxes((5, 6), (0, 2, 5, 1)))
    below = contour(boxes((5, 6), (3, 0, 2, 6)))
    assert torch.equal(below, boxes((5, 6), (2, 0, 1, 6)))


def test_contour_pixel_by_pixel() -> None:
    mask = blobs(1, (17, 23))[0]
    rows = mask.tolist()
    for y in range(17):
        for x in range(23):
            others = [
                rows[b][a] for b, a in ((y, x + 1), (y + 1, x), (y + 1, x + 1)) if b < 17 and a < 23
            ]
            assert bool(contour(mask)[y, x]) == any(o != rows[y][x] for o in others)


@pytest.mark.parametrize(("moved", "value"), [(0, 1.0), (8, 1.0), (9, 0.0)])
def test_the_official_tolerance_at_480p(moved: int, value: float) -> None:
    """0.008 of a diagonal of 979.7 pixels is 7.8, so the tolerance is 8 pixels."""
    truth, prediction = (boxes((480, 854), (0, 0, 480, x)) for x in (400, 400 + moved))
    assert float(contour_accuracy(prediction, truth)) == value


@pytest.mark.parametrize(("radius", "value"), [(3, 0.0), (4, 1 / 4), (5, 1.0)])
def test_the_neighborhood_is_a_disk(radius: int, value: float) -> None:
    """Two single pixels at an offset of (3, 4) have contours of 2 x 2 pixels each.

    Their pixels are nearest to the other contour at offsets (2, 3), (3, 3), (2, 4) and (3, 4), that
    is, at distances 3.6, 4.2, 4.5 and 5. The frame diagonal is 50.
    """
    size = (30, 40)
    one, other = boxes(size, (10, 10, 1, 1)), boxes(size, (13, 14, 1, 1))
    assert float(contour_accuracy(one, other, tolerance=radius / 50)) == pytest.approx(value)
    assert float(contour_accuracy(other, one, tolerance=radius / 50)) == pytest.approx(value)


def test_precision_and_recall_by_hand() -> None:
    """Half of the predicted contour is far from the true one, which is found entirely: P = 1/2."""
    truth = boxes((30, 40), (5, 5, 1, 1))
    prediction = truth | boxes((30, 40), (20, 30, 1, 1))
    assert float(contour_accuracy(prediction, truth)) == pytest.approx(2 / 3)


def test_empty_contours() -> None:
    one, empty = boxes((30, 40), (5, 5, 3, 3)), boxes((30, 40))
    pairs = torch.stack([one, empty, empty]), torch.stack([empty, one, empty])
    assert contour_accuracy(*pairs).tolist() == [0.0, 0.0, 1.0]


def test_contours_against_dilation() -> None:
    """The definition: both contours are dilated with a disk."""
    a, b = blobs(6, (40, 50)), blobs(6, (40, 50))
    found = contour_accuracy(a.unflatten(0, (2, 3)), b.unflatten(0, (2, 3)), tolerance=0.03)
    radius = math.ceil(0.03 * math.hypot(40, 50))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2
    for value, mine, true in zip(found.flatten().tolist(), a, b, strict=True):
        ours, theirs = contour(mine).numpy(), contour(true).numpy()
        precision = (ours & ndimage.binary_dilation(theirs, disk)).sum() / ours.sum()
        recall = (theirs & ndimage.binary_dilation(ours, disk)).sum() / theirs.sum()
        assert value == pytest.approx(2 * precision * recall / (precision + recall))
        assert 0 < value < 1


def test_course_by_hand() -> None:
    """With 9 frames, the first quarter is 0 to 2 and the last is 6 to 8."""
    found = course([1.0, 0.9, 0.8, 0.5, 0.51, 0.4, 0.3, 0.2, 0.1])
    assert found.mean == pytest.approx(4.71 / 9)
    assert found.recall == pytest.approx(4 / 9)  # 0.5 itself is not more than 0.5
    assert found.decay == pytest.approx(0.9 - 0.2)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 7, 8, 34, 99, 103, 1025])
def test_quarters_are_the_official_ones(frames: int) -> None:
    """The official evaluation computes their ends as ``round(linspace(1, n, 5) + 1e-10) - 1``."""
    values = torch.rand(frames, dtype=torch.float64).tolist()
    ends = (np.round(np.linspace(1, frames, 5) + 1e-10) - 1).astype(int)
    first, last = values[ends[0] : ends[1] + 1], values[ends[3] : ends[4] + 1]
    assert course(values).decay == pytest.approx(np.mean(first) - np.mean(last))


@pytest.mark.parametrize("measure", [region_similarity, contour_accuracy])
def test_bad_masks(measure) -> None:
    mask = boxes((3, 4))
    with pytest.raises(ValueError, match=rf"{measure.__name__} needs two bool masks.*\(4, 3\)"):
        measure(mask, mask.T)
    with pytest.raises(ValueError, match=r"of torch.int64 and"):
        measure(mask.long(), mask)


def test_bad_numbers() -> None:
    mask = boxes((3, 4))
    with pytest.raises(ValueError, match="tolerance >= 0, got -1"):
        contour_accuracy(mask, mask, -1)
    with pytest.raises(ValueError, match="at least one frame, got none"):
        course([])
