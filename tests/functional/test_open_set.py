"""Open-set accuracies by loops and by hand, and their harmonic mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from mixplug.functional.open_set import h_score, open_set_accuracy, spread_thresholds


def loop(confidence, correct, unknown, t: float) -> tuple[float, float]:
    """Predictions by class names, one example at a time; unknown examples are 'other'."""
    right = {False: [], True: []}
    for c, ok, new in zip(confidence, correct, unknown, strict=True):
        called = "other" if c < t else ("right" if ok else "wrong")
        right[bool(new)].append(called == ("other" if new else "right"))
    return sum(right[False]) / len(right[False]), sum(right[True]) / len(right[True])


def test_accuracies_are_those_of_a_loop(dtype: torch.dtype) -> None:
    confidence = torch.rand(40, dtype=dtype)
    correct, unknown = torch.rand(40) < 0.6, torch.rand(40) < 0.4
    thresholds = torch.cat([spread_thresholds(confidence, 7), confidence[:3]])  # ties among them
    found = open_set_accuracy(confidence, correct, unknown, thresholds)
    expected = [loop(confidence, correct, unknown, t) for t in thresholds]
    assert_close(torch.stack(found, 1), torch.tensor(expected, dtype=torch.float64))


def test_by_hand() -> None:
    """Three known examples, the second misclassified, and two unknown ones."""
    confidence = torch.tensor([0.9, 0.8, 0.4, 0.5, 0.3])
    correct = torch.tensor([True, False, True, True, False])
    unknown = torch.tensor([False, False, False, True, True])
    thresholds = torch.tensor([0.0, 0.35, 0.5, 0.6, 1.0])
    known, other = open_set_accuracy(confidence, correct, unknown, thresholds)
    assert_close(known, torch.tensor([2, 2, 1, 1, 0], dtype=torch.float64) / 3)
    assert_close(other, torch.tensor([0, 0.5, 0.5, 1, 1], dtype=torch.float64))
    assert_close(
        h_score(known, other), torch.tensor([0, 4 / 7, 2 / 5, 1 / 2, 0], dtype=torch.float64)
    )


def test_h_score_is_zero_at_zero_and_nan_without_examples() -> None:
    zero = torch.zeros(2, requires_grad=True)
    score = h_score(zero, torch.zeros(2))
    assert score.tolist() == [0, 0]
    assert h_score(torch.tensor(0.5), torch.tensor(0.5)) == 0.5
    known, other = open_set_accuracy(
        torch.tensor([0.5]), torch.tensor([True]), torch.tensor([False]), torch.tensor([0.1])
    )
    assert known.tolist() == [1.0] and math.isnan(float(other))


def test_thresholds_go_from_the_least_to_the_largest(dtype: torch.dtype) -> None:
    found = spread_thresholds(torch.tensor([0.4, 0.1, 1.0], dtype=dtype), 4)
    assert_close(found, torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=dtype))
    assert spread_thresholds(torch.tensor([0.3, 0.3])).tolist() == pytest.approx([0.3] * 10)


def test_wrong_arguments_raise() -> None:
    c, yes = torch.rand(3), torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\(N,\), got \(3,\), \(2,\) and \(3,\)"):
        open_set_accuracy(c, yes[:2], yes, c)
    with pytest.raises(ValueError, match=r"correct and unknown, got torch.bool and torch.int64"):
        open_set_accuracy(c, yes, yes.long(), c)
    with pytest.raises(ValueError, match=r"thresholds \(T,\), got \(\)"):
        open_set_accuracy(c, yes, yes, torch.tensor(0.5))
    for given, count in ((c[:0], 10), (c, 1)):
        with pytest.raises(ValueError, match="N > 0 and count >= 2"):
            spread_thresholds(given, count)
