"""Calibration errors against loops over bins, and fractions worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from reference import calibration as naive
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional import (
    calibration_bins,
    expected_calibration_error,
    overconfidence_error,
)


def binary(confidences: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    """Predictions of class 0 with the given confidences, each at least a half."""
    confidence = torch.tensor(confidences, dtype=dtype)
    return torch.stack([confidence, 1 - confidence], 1)


@pytest.mark.parametrize("bins", [1, 2, 15, 40])
@pytest.mark.parametrize(("examples", "classes"), [(200, 5), (1, 3), (37, 2)])
def test_errors_equal_the_loop(examples: int, classes: int, bins: int, dtype: torch.dtype) -> None:
    probabilities = (torch.randn(examples, classes, dtype=dtype) * 2).softmax(-1)
    labels = torch.randint(classes, (examples,))
    rows, wanted = probabilities.tolist(), labels.tolist()
    expected = torch.tensor(naive.bins_of(rows, wanted, bins), dtype=torch.float64).T
    assert_close(torch.stack(calibration_bins(probabilities, labels, bins)), expected)
    assert float(expected_calibration_error(probabilities, labels, bins)) == pytest.approx(
        naive.expected_calibration_error(rows, wanted, bins), rel=1e-9, abs=1e-12
    )
    assert float(overconfidence_error(probabilities, labels, bins)) == pytest.approx(
        naive.overconfidence_error(rows, wanted, bins), rel=1e-9, abs=1e-12
    )


def test_errors_by_hand() -> None:
    """Ten bins: two of five examples at 0.65 are right, three of three at 0.95, one of two at 0.55.

    Bins have shares 1/2, 3/10, 1/5 and gaps 2/5 - 13/20 = -1/4, 1 - 19/20 = 1/20, 1/2 - 11/20 =
    -1/20. ECE = 1/8 + 3/200 + 1/100. OE counts the first and the last, times their confidence.
    """
    probabilities = binary([0.65] * 5 + [0.95] * 3 + [0.55] * 2)
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 0, 0, 0, 1])
    ece = Fraction(1, 8) + Fraction(3, 200) + Fraction(1, 100)
    oe = Fraction(1, 2) * Fraction(13, 20) / 4 + Fraction(1, 5) * Fraction(11, 20) / 20
    assert float(expected_calibration_error(probabilities, labels, 10)) == pytest.approx(float(ece))
    assert float(overconfidence_error(probabilities, labels, 10)) == pytest.approx(float(oe))
    share, accuracy, confidence = calibration_bins(probabilities, labels, 10)
    assert_close(share, torch.tensor([0, 0, 0, 0, 0, 0.2, 0.5, 0, 0, 0.3]).double())
    assert_close(accuracy, torch.tensor([0, 0, 0, 0, 0, 0.5, 0.4, 0, 0, 1.0]).double())
    assert_close(confidence, torch.tensor([0, 0, 0, 0, 0, 0.55, 0.65, 0, 0, 0.95]).double())


def test_fifteen_bins_are_the_default() -> None:
    """0.61 and 0.66 share a bin of 15 but not of 16; (0.6, 2/3] mixes a right and a wrong one."""
    probabilities, labels = binary([0.61, 0.66]), torch.tensor([0, 1])
    expected = abs(Fraction(1, 2) - Fraction(127, 200))
    assert float(expected_calibration_error(probabilities, labels)) == pytest.approx(
        float(expected)
    )
    expected *= Fraction(127, 200)
    assert float(overconfidence_error(probabilities, labels)) == pytest.approx(float(expected))


@pytest.mark.parametrize("bins", [2, 10, 15, 25, 29])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(bins: int) -> None:
    for i in range(1, bins + 1):
        rest = (1 - i / bins) / bins  # spread thinly, so that class 0 is the largest
        probabilities = torch.tensor([[i / bins, *[min(rest, i / bins / 2)] * bins]]).double()
        probabilities[0, 0] = i / bins
        share, _, _ = calibration_bins(probabilities, torch.tensor([0]), bins)
        assert int(share.argmax()) == i - 1, f"confidence {i}/{bins}"


def test_a_confidence_of_zero_belongs_to_the_first_bin() -> None:
    share, accuracy, _ = calibration_bins(torch.zeros(1, 3), torch.tensor([0]), 4)
    assert share.tolist() == [1, 0, 0, 0] and accuracy.tolist() == [1, 0, 0, 0]


def test_perfect_calibration_is_zero(dtype: torch.dtype) -> None:
    """Of four predictions at 3/4 three are right, of two at 1/2 one, of those at 1 all."""
    probabilities = binary([0.75] * 4 + [0.5] * 2 + [1.0] * 3, dtype)
    labels = torch.tensor([0, 0, 0, 1, 0, 1, 0, 0, 0])
    assert float(expected_calibration_error(probabilities, labels)) == 0
    assert float(overconfidence_error(probabilities, labels)) == 0


def test_a_network_that_is_sure_and_wrong_has_errors_of_one() -> None:
    probabilities, labels = torch.eye(3)[[0, 1, 2]], torch.tensor([1, 2, 0])
    assert float(expected_calibration_error(probabilities, labels)) == 1
    assert float(overconfidence_error(probabilities, labels)) == 1


def test_underconfidence_is_no_overconfidence() -> None:
    probabilities, labels = binary([0.6, 0.7]), torch.tensor([0, 0])
    assert float(overconfidence_error(probabilities, labels)) == 0
    assert float(expected_calibration_error(probabilities, labels)) == pytest.approx(0.35)


def test_one_bin_compares_the_means() -> None:
    probabilities, labels = binary([0.6, 0.9, 0.75]), torch.tensor([0, 1, 1])
    assert float(expected_calibration_error(probabilities, labels, 1)) == pytest.approx(
        0.75 - 1 / 3
    )


def test_calibration_errors() -> None:
    with pytest.raises(ValueError, match=r"calibration needs bins >= 1, got 0\."):
        calibration_bins(torch.rand(2, 3), torch.tensor([0, 1]), 0)
    message = r"needs probabilities \(B, K\) and labels \(B,\) with B >= 1, got "
    with pytest.raises(ValueError, match=message + r"\(2, 3\) and \(3,\)\."):
        expected_calibration_error(torch.rand(2, 3), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=message + r"\(2,\) and \(2,\)\."):
        overconfidence_error(torch.rand(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=message + r"\(0, 3\) and \(0,\)\."):
        calibration_bins(torch.rand(0, 3), torch.tensor([], dtype=torch.long))
