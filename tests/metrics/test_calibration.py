"""Calibration batch by batch against all examples at once, and numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional.calibration import (
    calibration_bins,
    expected_calibration_error,
    negative_log_likelihood,
    overconfidence_error,
)
from mixplug.metrics.calibration import CalibrationMetrics
from mixplug.numbers import numbers


def predictions(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return 3 * torch.randn(n, 4, dtype=dtype), torch.randint(4, (n,))


@pytest.mark.parametrize("size", [1, 7, 60, 100])
@pytest.mark.parametrize("bins", [1, 15])
def test_batches_make_the_numbers_of_all_at_once(size: int, bins: int, dtype: torch.dtype) -> None:
    logits, labels = predictions(60, dtype)
    whole, metric = logits.softmax(1), CalibrationMetrics(bins)
    for rows, y in zip(whole.split(size), labels.split(size), strict=True):
        metric.update(rows, y)
    for mine, other in zip(metric.diagram(), calibration_bins(whole, labels, bins), strict=True):
        assert_close(mine, other, rtol=1e-12, atol=1e-15)
    confidence, predicted = whole.double().max(1)
    found = metric.compute()
    assert len(metric) == 60
    assert found["ece"] == pytest.approx(
        float(expected_calibration_error(whole, labels, bins)), rel=1e-12
    )
    assert found["oe"] == pytest.approx(float(overconfidence_error(whole, labels, bins)), rel=1e-12)
    assert found["accuracy"] == pytest.approx(float((predicted == labels).double().mean()))
    assert found["confidence"] == pytest.approx(float(confidence.mean()))
    for number in numbers("calibration", "probabilities"):
        wanted = number.function(whole.double(), labels).mean()
        assert found[number.name] == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_batches_of_logits_have_all_numbers(size: int, dtype: torch.dtype) -> None:
    logits, labels = predictions(60, dtype)
    metric = CalibrationMetrics()
    for rows, y in zip(logits.split(size), labels.split(size), strict=True):
        metric.update_logits(rows, y)
    found = metric.compute()
    assert list(found)[:-2] == [number.name for number in numbers("calibration")]
    assert found["nll"] == pytest.approx(float(negative_log_likelihood(logits, labels)), rel=1e-6)


def test_a_number_that_one_batch_lacks_is_left_out() -> None:
    """Probabilities have no NLL here: a mean over the other batches would be wrong."""
    logits, labels = predictions(12, torch.float64)
    for order in (1, -1):
        metric = CalibrationMetrics()
        updates = [metric.update_logits, metric.update]
        for update, rows in list(zip(updates, (logits, logits.softmax(1)), strict=True))[::order]:
            update(rows, labels)
        found = metric.compute()
        assert "nll" not in found
        assert found["ece"] == pytest.approx(
            float(expected_calibration_error(logits.softmax(1), labels))
        )
        joined = CalibrationMetrics()
        joined.merge(metric)
        joined.merge(CalibrationMetrics())  # of a rank without examples
        assert joined.compute() == found


def test_by_hand() -> None:
    """Two bins: 0.4 is right; 0.75 twice, one of them right. ECE 1/3 3/5 + 2/3 1/4, OE 2/3 3/16."""
    metric = CalibrationMetrics(2)
    metric.update(torch.tensor([[0.4, 0.3, 0.3]], dtype=torch.float64), torch.tensor([0]))
    rows = torch.tensor([[0.75, 0.25, 0], [0, 0.25, 0.75]]).double()
    metric.update(rows, torch.tensor([0, 1]))
    wanted = {"ece": 1 / 5 + 1 / 6, "oe": 1 / 8, "accuracy": 2 / 3, "confidence": 1.9 / 3}
    found = metric.compute()
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert metric.sums.tolist() == [[1, 2], [1, 1], [0.4, 1.5]]


def shared(found: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """The numbers that can be computed from probabilities as well."""
    return {name: value for name, value in found.items() if name in other}


def test_logits_are_brought_to_probabilities(dtype: torch.dtype) -> None:
    logits, labels = predictions(20, dtype)
    of_logits, of_rows = CalibrationMetrics(), CalibrationMetrics()
    of_logits.update_logits(logits, labels)
    of_rows.update(logits.softmax(1), labels)
    assert shared(of_logits.compute(), of_rows.compute()) == of_rows.compute()
    half = CalibrationMetrics()
    half.update_logits(logits.to(torch.bfloat16), labels)
    of_rows.reset()
    of_rows.update(logits.to(torch.bfloat16).float().softmax(1), labels)
    assert shared(half.compute(), of_rows.compute()) == of_rows.compute()


def test_ranks_that_merge_make_one() -> None:
    logits, labels = predictions(41, torch.float32)
    one, first, second = CalibrationMetrics(), CalibrationMetrics(), CalibrationMetrics()
    one.update_logits(logits, labels)
    first.update_logits(logits[:10], labels[:10])
    second.update_logits(logits[10:], labels[10:])
    before = second.sums.clone()
    first.merge(second)
    assert_close(first.sums, one.sums, rtol=1e-12, atol=0)
    assert first.compute() == pytest.approx(one.compute(), rel=1e-12)
    assert (second.sums == before).all()


def test_reset_forgets() -> None:
    logits, labels = predictions(9, torch.float32)
    metric, fresh = CalibrationMetrics(), CalibrationMetrics()
    metric.update_logits(logits[:4], labels[:4])
    metric.reset()
    metric.update_logits(logits[4:], labels[4:])
    fresh.update_logits(logits[4:], labels[4:])
    assert metric.compute() == fresh.compute()


def test_two_of_them_share_nothing_and_keep_no_graph() -> None:
    logits, labels = predictions(5, torch.float32)
    metric, other = CalibrationMetrics(), CalibrationMetrics()
    metric.update_logits(logits.requires_grad_(), labels)
    assert not metric.sums.requires_grad and other.sums.sum() == 0


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"CalibrationMetrics needs bins >= 1, got 0\."):
        CalibrationMetrics(0)
    metric = CalibrationMetrics()
    with pytest.raises(ValueError, match=r"calibration needs at least one example, got none\."):
        metric.compute()
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 2\.5: logits go to update_logits\."):
        metric.update(torch.tensor([[2.5, 0.1]]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"in \[0, 1\], got nan"):
        metric.update(torch.tensor([[float("nan"), 0.1]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="update_logits needs finite logits"):
        metric.update_logits(torch.tensor([[float("nan"), 0.1]]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(1,\)\."):
        metric.update(torch.full((2, 3), 0.3), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"merge needs the same bins, got 15 and 10\."):
        metric.merge(CalibrationMetrics(10))
    assert metric.sums.sum() == 0
