"""Scores of tracking against answers worked out by hand, and a naive count of pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional.tracking_metrics import (
    average_overlap,
    box_overlaps,
    class_balanced,
    sequence_overlaps,
    success_rate,
)


def pixels(box: Tensor, size: int = 40) -> Tensor:
    """Which pixels of a grid, whose corner is (-10, -10), a box of whole numbers has."""
    grid = torch.zeros(size, size, dtype=torch.bool)
    left, top, width, height = (int(n) for n in box)
    grid[top + 10 : top + 10 + height, left + 10 : left + 10 + width] = True
    return grid


def test_overlaps_worked_out_by_hand(dtype: torch.dtype) -> None:
    a = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 0, 0]], dtype=dtype)
    b = torch.tensor([[0, 0, 4, 4], [2, 0, 4, 4], [5, 5, 1, 1], [1, 1, 0, 3]], dtype=dtype)
    # the same; 8 of 24; apart; both without area
    assert_close(box_overlaps(a, b), torch.tensor([1, 1 / 3, 0, 0], dtype=dtype))


def test_overlaps_are_counted_pixels(dtype: torch.dtype) -> None:
    source = torch.Generator().manual_seed(1)
    corner = torch.randint(-5, 10, (2, 50, 2), generator=source)
    size = torch.randint(1, 15, (2, 50, 2), generator=source)
    a, b = torch.cat([corner, size], -1)
    frame = pixels(torch.tensor([0, 0, 12, 8]))
    for bound, seen in ((None, torch.ones_like(frame)), ((12, 8), frame)):
        wanted = []
        for one, other in zip(a, b, strict=True):
            p, q = pixels(one) & seen, pixels(other) & seen
            either = int((p | q).sum())
            wanted.append(int((p & q).sum()) / either if either else 0.0)
        got = box_overlaps(a.to(dtype), b.to(dtype), bound)
        assert_close(got, torch.tensor(wanted, dtype=dtype))


def test_the_first_frame_and_absent_ones_do_not_count() -> None:
    truth = torch.tensor([[0, 0, 10, 10]] * 4).double()
    found = truth.clone()
    found[0, 2] = 1  # the given box, whatever it is
    found[1, 2] = 5
    found[2] = torch.tensor([50, 50, 5, 5])  # the object is not there
    there = torch.tensor([True, True, False, True])
    assert sequence_overlaps(found, truth, there).tolist() == [0.5, 1.0]


def test_scores_of_three_sequences_worked_out_by_hand() -> None:
    """Classes cat (two sequences) and dog (one).

    Overlaps: cat 1, 0.5 | cat 0.25 | dog 0.8, 0.8, 0.8, 0.6. AO over seven frames: 4.75 / 7. Means
    of sequences: 0.75, 0.25, 0.75; of classes: 0.5, 0.75; mAO 0.625.
    """
    overlaps = [
        torch.tensor([1.0, 0.5]),
        torch.tensor([0.25]),
        torch.tensor([0.8, 0.8, 0.8, 0.6], dtype=torch.float64),
    ]
    classes = ["cat", "cat", "dog"]
    assert average_overlap(overlaps) == pytest.approx(4.75 / 7)
    means = [float(part.mean()) for part in overlaps]
    assert class_balanced(means, classes) == pytest.approx(0.625)
    # 0.5 itself is not above 0.5
    assert success_rate(overlaps, 0.5) == pytest.approx(5 / 7)
    assert success_rate(overlaps, 0.75) == pytest.approx(4 / 7)
    rates = [success_rate([part], 0.75) for part in overlaps]
    assert class_balanced(rates, classes) == pytest.approx((0.25 + 0.75) / 2)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 4\) and \(3, 4\)"):
        box_overlaps(torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"got \(2, 4\), \(2, 4\) and \(3,\)"):
        sequence_overlaps(torch.zeros(2, 4), torch.zeros(2, 4), torch.ones(3).bool())
    for nothing in ([], [torch.zeros(0)]):
        with pytest.raises(ValueError, match="at least one evaluated frame"):
            average_overlap(nothing)
    with pytest.raises(ValueError, match="got 2 values and 1 classes"):
        class_balanced([0.1, 0.2], ["cat"])
    with pytest.raises(ValueError, match="got 0 values"):
        class_balanced([], [])
