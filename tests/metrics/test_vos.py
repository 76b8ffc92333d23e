"""DAVIS-2017's evaluation on label maps small enough to score by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixplug.functional.vos import Course
from mixplug.metrics.vos import ObjectScore, object_count, overall, score_video

SIZE = (20, 30)  # the tolerance is one pixel


def label_map(*objects: tuple[int, int, int], void: bool = False) -> Tensor:
    """Squares of 6 x 6 as (number, top, left), and a strip of void at the right."""
    labels = torch.zeros(SIZE, dtype=torch.uint8)
    for number, top, left in objects:
        labels[top : top + 6, left : left + 6] = number
    if void:
        labels[:, -3:] = 255
    return labels


def test_two_objects_by_hand() -> None:
    """The first is right in the one frame and gone in the other; the second is 3 pixels off."""
    truth = label_map((1, 2, 2), (2, 12, 12), void=True)
    first = label_map((1, 2, 2), (2, 12, 15))
    second = label_map((2, 12, 15))
    one, two = score_video("v", [(first, truth), (second, truth)], 2)
    assert (one.video, one.number, two.number) == ("v", 1, 2)
    assert (one.region.mean, one.region.recall, one.region.decay) == (0.5, 0.5, 1.0)
    assert (one.contour.mean, one.contour.recall, one.contour.decay) == (0.5, 0.5, 1.0)
    assert two.region.mean == pytest.approx(18 / 54)
    assert (two.region.recall, two.region.decay) == (0.0, 0.0)
    # Both contours have 24 pixels, a ring of 7 x 7. Moved by 3 along, each has 4 pixels of its
    # upper and of its lower side on the other's, one more beside each of these, and of the upright
    # side that lies between them the two ends next to these: 12 of 24.
    assert two.contour.mean == pytest.approx(12 / 24)
    assert two.both == pytest.approx((18 / 54 + 12 / 24) / 2)


def test_an_object_that_is_gone_and_not_predicted_is_right() -> None:
    nothing = label_map()
    (score,) = score_video("v", [(nothing, nothing)], 1)
    assert score.region.mean == score.contour.mean == 1


def test_objects_are_counted_without_void() -> None:
    assert object_count(label_map((1, 2, 2), (3, 10, 10), void=True)) == 3
    assert object_count(label_map(void=True)) == 0


def test_later_objects_do_not_count() -> None:
    """An annotation may have one that the first had not."""
    truth = label_map((1, 2, 2), (2, 12, 12))
    (score,) = score_video("v", [(label_map((1, 2, 2)), truth)], 1)
    assert score.region.mean == 1


def test_every_object_weighs_alike() -> None:
    """Not every video: one has an object of 1.0, the other two of 0.4 and 0.1."""
    scores = [
        ObjectScore(video, 1, Course(value, 2 * value, 3 * value), Course(value / 2, 0.0, -value))
        for video, value in (("a", 1.0), ("b", 0.4), ("b", 0.1))
    ]
    found = overall(scores)
    assert found.region.mean == pytest.approx(0.5)
    assert found.region.recall == pytest.approx(1.0)
    assert found.region.decay == pytest.approx(1.5)
    assert found.contour.mean == pytest.approx(0.25)
    assert found.contour.decay == pytest.approx(-0.5)
    assert found.both == pytest.approx(0.375)


def test_errors() -> None:
    truth = label_map((1, 2, 2))
    with pytest.raises(ValueError, match=r"v: a prediction has object 2, but .* 1 objects"):
        score_video("v", [(label_map((2, 2, 2)), truth)], 1)
    with pytest.raises(ValueError, match=r"prediction has \(20, 29\) pixels, .* has \(20, 30\)"):
        score_video("v", [(truth[:, 1:], truth)], 1)
    with pytest.raises(ValueError, match="v needs at least 3 frames"):
        score_video("v", [], 1)
    with pytest.raises(ValueError, match="at least one object"):
        overall([])
