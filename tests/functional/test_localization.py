"""Maps, boxes and overlaps against loops over pixels and results by hand."""

from __future__ import annotations

import pytest
import torch
from reference import localization as naive
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional.localization import (
    box_iou,
    boxes_by_threshold,
    class_activation_map,
    component_boxes,
    heat_of_map,
    map_overlaps,
    max_box_accuracy,
    max_box_accuracy_v2,
    top1_localization,
)


def drawn(*rows: str) -> Tensor:
    """A mask drawn as text; # is inside."""
    return torch.tensor([[cell == "#" for cell in row] for row in rows])


def test_cam_by_loops_and_by_hand(dtype: torch.dtype) -> None:
    maps, weight = torch.randn(3, 4, 2, 5, dtype=dtype), torch.randn(6, 4, dtype=dtype)
    classes = torch.tensor([5, 0, 2])
    found = class_activation_map(maps, weight, classes)
    assert_close(
        found, torch.tensor(naive.class_activation_map(maps, weight, classes), dtype=dtype)
    )
    two = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]], dtype=dtype)
    rows = torch.tensor([[1.0, 0.0], [2.0, -3.0]], dtype=dtype)
    assert class_activation_map(two, rows, torch.tensor([1])).tolist() == [[[-7, 7]]]


def test_mean_of_cam_and_bias_are_the_logit(dtype: torch.dtype) -> None:
    maps, layer = torch.randn(2, 4, 3, 3, dtype=dtype), torch.nn.Linear(4, 6, dtype=dtype)
    classes = torch.tensor([1, 4])
    logits = layer(maps.mean((2, 3)))[[0, 1], classes]
    cam = class_activation_map(maps, layer.weight, classes)
    assert_close(cam.mean((1, 2)) + layer.bias[classes], logits)


def test_half_precision_becomes_float32() -> None:
    maps = torch.randn(1, 3, 2, 2).bfloat16()
    weight = torch.randn(2, 3)
    found = class_activation_map(maps, weight, torch.tensor([0]))
    assert found.dtype == torch.float32
    assert_close(found, class_activation_map(maps.float(), weight, torch.tensor([0])))


def test_heat_is_from_0_to_1(dtype: torch.dtype) -> None:
    """Without resizing, a map is only shifted and scaled, so offsets and factors cancel."""
    maps = torch.tensor([[[-1.0, 0.0], [1.0, 3.0]], [[4.0, 4.0], [4.0, 4.0]]], dtype=dtype)
    found = heat_of_map(maps, (2, 2))
    assert_close(found[0], torch.tensor([[0, 0.25], [0.5, 1]], dtype=dtype))
    assert found.dtype == dtype and not found[1].any()
    large = heat_of_map(torch.randn(3, 4, 5, dtype=dtype), (16, 30))
    assert large.shape == (3, 16, 30)
    assert_close(large.amin((1, 2)), torch.zeros(3, dtype=dtype))
    assert_close(large.amax((1, 2)), torch.ones(3, dtype=dtype))
    assert_close(heat_of_map(7 * maps - 2, (6, 4)), heat_of_map(maps, (6, 4)))
    assert not heat_of_map(torch.full((1, 3, 3), 0.1, dtype=dtype), (50, 37)).any()


def test_heat_is_resized_before_it_is_scaled() -> None:
    """Bicubic interpolation exceeds the extremes; the new extremes become 0 and 1."""
    peak = torch.zeros(1, 5, 5)
    peak[0, 2, 2] = 1
    large = heat_of_map(peak, (25, 25))[0]
    assert large[12, 12] == 1 and large.min() == 0
    assert large[0, 0] > 0.01  # the minimum of the small map


def test_components_touch_at_corners() -> None:
    """Boxes are (left, top, right, bottom): the largest first, then in row-major order."""
    mask = drawn("##....", "..#...", ".....#", "#...##")
    assert component_boxes(mask).tolist() == [[0, 0, 3, 2], [4, 2, 6, 4], [0, 3, 1, 4]]
    assert component_boxes(drawn("...", "...")).shape == (0, 4)
    ring = drawn("#####", "#...#", "#.#.#", "#...#", "#####")
    assert component_boxes(ring).tolist() == [
        [0, 0, 5, 5],
        [2, 2, 3, 3],
    ]  # the hole is no component
    assert component_boxes(drawn("#.#", "...")).tolist() == [[0, 0, 1, 1], [2, 0, 3, 1]]
    assert component_boxes(drawn("####")).tolist() == [[0, 0, 4, 1]]


@pytest.mark.parametrize("share", [0.2, 0.4, 0.7])
def test_components_by_loops(share: float) -> None:
    for _ in range(20):
        heat = torch.rand(7, 9)
        found = [tuple(box) for box in component_boxes(heat > share).tolist()]
        assert found == naive.boxes(heat, share)


def test_a_threshold_must_be_exceeded() -> None:
    heat = torch.tensor([[0.0, 0.5, 1.0, 0.0]])
    found = boxes_by_threshold(heat, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert [boxes.tolist() for boxes in found] == [
        [[1, 0, 3, 1]], [[1, 0, 3, 1]], [[2, 0, 3, 1]], [[2, 0, 3, 1]], [],
    ]  # fmt: skip


def test_iou_by_hand(dtype: torch.dtype) -> None:
    """IoU of boxes that share only a side, of two partial overlaps, and of equal boxes."""
    boxes = torch.tensor([[0, 0, 4, 4], [2, 0, 4, 4], [4, 0, 8, 4], [3, 3, 5, 5]])
    truth = torch.tensor([[0, 0, 4, 4], [0, 0, 3, 3]]).to(dtype)
    found = box_iou(boxes, truth)
    expected = torch.tensor([[1, 9 / 16], [1 / 2, 3 / 14], [0, 0], [1 / 19, 0]], dtype=dtype)
    assert_close(found, expected)


def test_overlaps_by_loops(dtype: torch.dtype) -> None:
    """With several true boxes, and with a best component that is not the largest."""
    thresholds, better = [step / 20 for step in range(20)], 0
    for _ in range(10):
        heat = heat_of_map(torch.rand(1, 3, 4, dtype=dtype), (9, 12))[0]
        truths = torch.tensor([[1.0, 2.0, 7.5, 6.0], [8.0, 0.0, 12.0, 3.25]]).to(dtype)
        largest, best = map_overlaps(heat, truths, thresholds)
        for every, found in ((False, largest), (True, best)):
            expected = [naive.overlap(heat, truths, t, every) for t in thresholds]
            assert_close(found, torch.tensor(expected, dtype=dtype))
        better += int((best > largest).sum())
    assert better > 5


def test_perfect_and_empty_maps(dtype: torch.dtype) -> None:
    heat, thresholds = torch.zeros(8, 8, dtype=dtype), [0.0, 0.5, 0.99]
    truth = torch.tensor([[2.0, 1.0, 5.0, 7.0]], dtype=dtype)
    assert all(not each.any() for each in map_overlaps(heat, truth, thresholds))
    heat[1:7, 2:5] = 1
    assert all(each.tolist() == [1, 1, 1] for each in map_overlaps(heat, truth, thresholds))


def test_accuracies_by_hand() -> None:
    """Each IoU threshold has its own best map threshold; ties go to the lowest."""
    iou = torch.tensor([[0.3, 0.5, 0.9, 0.9], [0.3, 0.5, 0.0, 0.0], [0.3, 0.2, 0.7, 0.7]])
    found = [max_box_accuracy(iou, least) for least in (0.3, 0.5, 0.7)]
    assert [float(accuracy) for accuracy, _ in found] == [1, 2 / 3, 2 / 3]
    assert [int(place) for _, place in found] == [0, 1, 2]
    assert float(max_box_accuracy_v2(iou)) == pytest.approx(7 / 9)
    assert float(max_box_accuracy_v2(iou, [0.3])) == 1
    right = torch.tensor([True, True, False, False])
    overlap = torch.tensor([0.5, 0.49, 0.5, 0.1])
    assert float(top1_localization(right, overlap)) == 0.25
    assert float(top1_localization(~right, overlap, 0.1)) == 0.5


MASK = drawn("##", "##")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: class_activation_map(torch.rand(1, 2, 3, 3), torch.rand(4, 5), torch.zeros(1)),
            r"got \(1, 2, 3, 3\), \(4, 5\) and \(1,\)",
        ),
        (
            lambda: class_activation_map(
                torch.rand(1, 2, 3, 3), torch.rand(4, 2), torch.tensor([4])
            ),
            r"classes in \[0, 4\), got 4 to 4",
        ),
        (lambda: heat_of_map(torch.rand(3, 3), (3, 3)), r"maps \(B, h, w\), got \(3, 3\)"),
        (lambda: heat_of_map(torch.full((1, 2, 2), torch.nan), (3, 3)), "finite maps, got NaN"),
        (lambda: component_boxes(torch.rand(2, 2)), r"bool mask \(H, W\), got \(2, 2\) of torch"),
        (lambda: boxes_by_threshold(torch.rand(2, 2), []), r"got \(2, 2\) and 0 thresholds"),
        (lambda: box_iou(torch.rand(4), torch.rand(1, 4)), r"boxes \(n, 4\), got \(4,\)"),
        (
            lambda: box_iou(torch.tensor([[0, 0, 2, 2]]), torch.tensor([[3, 0, 3, 2]])),
            r"truths \(left, top, right, bottom\) with an area > 0, got \[3, 0, 3, 2\]",
        ),
        (lambda: map_overlaps(torch.rand(2, 2), torch.rand(0, 4), [0.5]), "at least one true box"),
        (
            lambda: top1_localization(torch.ones(2), torch.ones(2)),
            r"a bool right .* got \(2,\) of torch.float32 and \(2,\)",
        ),
        (lambda: max_box_accuracy(torch.rand(0, 3)), r"B, T >= 1, got \(0, 3\)"),
        (lambda: max_box_accuracy_v2(torch.rand(1, 3), []), "at least one IoU threshold, got none"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
