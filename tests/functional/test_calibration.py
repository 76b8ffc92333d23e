"""Calibration errors against loops over bins, and fractions computed by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from reference import calibration as naive
from reference.compare import assert_near
from torch import Tensor
from torch.testing import assert_close
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.classification import multiclass_calibration_error

from mixplug.functional import calibration
from mixplug.functional.calibration import (
    bins_of_sums,
    brier_score,
    calibration_bins,
    calibration_sums,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
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


@pytest.mark.parametrize(("examples", "classes"), [(200, 5), (1, 3), (37, 2)])
def test_brier_score_equals_the_loop(examples: int, classes: int, dtype: torch.dtype) -> None:
    probabilities = (torch.randn(examples, classes, dtype=dtype) * 2).softmax(-1).requires_grad_()
    labels = torch.randint(classes, (examples,))
    before = probabilities.detach().clone()
    scores = brier_score(probabilities, labels)
    assert scores.shape == (examples,) and scores.dtype == dtype
    wanted = naive.brier_score(probabilities.tolist(), labels.tolist())
    assert scores.mean().item() == pytest.approx(wanted, rel=1e-6)
    truth = torch.nn.functional.one_hot(labels, classes).to(dtype)
    of_torchmetrics = classes * mean_squared_error(probabilities.detach(), truth)
    assert scores.mean().item() == pytest.approx(float(of_torchmetrics), rel=1e-6)
    scores.sum().backward()
    assert_close(probabilities.grad, 2 * (before - truth))
    assert torch.equal(probabilities, before)


def test_brier_score_by_hand() -> None:
    rows = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]]).double()
    scores = brier_score(rows, torch.tensor([0, 0, 1, 2]))
    assert scores.tolist() == pytest.approx([0, 2, 0.25 + 0.49 + 0.04, 2 / 3])


def test_errors_by_hand() -> None:
    """Ten bins. Correct are 2 of 5 examples at 0.65, 3 of 3 at 0.95, and 1 of 2 at 0.55.

    The bins have shares 1/2, 3/10, 1/5 and gaps 2/5 - 13/20 = -1/4, 1 - 19/20 = 1/20,
    1/2 - 11/20 = -1/20. So ECE = 1/8 + 3/200 + 1/100. OE sums the first and the last bin, weighted
    by their confidence.
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
    """0.61 and 0.66 are in one of 15 bins, but in two of 16. One of the two is correct."""
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
        confidence = torch.tensor([i / bins], dtype=torch.float64)
        share, _, _ = bins_of_sums(calibration_sums(confidence, torch.ones(1), bins))
        assert int(share.argmax()) == i - 1, f"confidence {i}/{bins}"


def test_a_confidence_of_zero_belongs_to_the_first_bin() -> None:
    sums = calibration_sums(torch.zeros(1), torch.ones(1), 4)
    share, accuracy, _ = bins_of_sums(sums)
    assert share.tolist() == [1, 0, 0, 0] and accuracy.tolist() == [1, 0, 0, 0]


Z = 3 * torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
NOT_FINITE = Z.softmax(1).index_fill(0, torch.tensor([3]), float("nan"))


@pytest.mark.parametrize(
    "score", [expected_calibration_error, overconfidence_error, calibration_bins, brier_score]
)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (Z, r"These may be logits: pass softmax\(-1\)"),
        (Z.abs() + 1, r"These may be logits: pass softmax\(-1\)"),
        (Z.log_softmax(1), r"These may be log-probabilities: pass exp\(\)"),
        (Z.sigmoid(), "independent classes, such as sigmoids"),
        (NOT_FINITE, "needs finite probabilities, got NaN"),
    ],
    ids=["logits", "positive logits", "log-probabilities", "sigmoids", "NaN"],
)
def test_what_is_no_probability_says_what_it_may_be(score, rows: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(rows, torch.zeros(50, dtype=torch.int64))


def test_a_label_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"labels in \[0, 10\), got 0 to 10"):
        expected_calibration_error(Z.softmax(1), torch.arange(50) % 11)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_probabilities_of_half_precision_are_such(kind: torch.dtype) -> None:
    z, y = torch.randn(20, 1000), torch.arange(20)
    found = expected_calibration_error(z.softmax(1).to(kind), y)
    assert abs(float(found - expected_calibration_error(z.softmax(1), y))) < 0.01


def test_perfect_calibration_is_zero(dtype: torch.dtype) -> None:
    """Correct are 3 of 4 predictions at 3/4, 1 of 2 at 1/2, and all at 1."""
    probabilities = binary([0.75] * 4 + [0.5] * 2 + [1.0] * 3, dtype)
    labels = torch.tensor([0, 0, 0, 1, 0, 1, 0, 0, 0])
    assert float(expected_calibration_error(probabilities, labels)) == 0
    assert float(overconfidence_error(probabilities, labels)) == 0


def test_a_confident_and_wrong_network_has_errors_of_one() -> None:
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


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_error_is_that_of_torchmetrics(bins: int) -> None:
    """The bins of torchmetrics are [a, b), ours are (a, b]; no confidence is on an edge here."""
    probabilities = (2 * torch.randn(300, 6)).softmax(-1)
    labels = torch.randint(6, (300,))
    wanted = multiclass_calibration_error(probabilities, labels, 6, bins, "l1")
    found = expected_calibration_error(probabilities, labels, bins)
    assert float(found) == pytest.approx(float(wanted), abs=1e-6)


def test_likelihood_equals_the_loop(dtype: torch.dtype) -> None:
    logits, labels = 5 * torch.randn(30, 4, dtype=dtype), torch.randint(4, (30,))
    value = negative_log_likelihood(logits, labels)
    assert value.dtype == dtype
    wanted = naive.negative_log_likelihood(logits.tolist(), labels.tolist())
    assert_near(value, torch.tensor(wanted, dtype=torch.float64))


def test_likelihood_by_hand() -> None:
    """Probabilities 1/2 and 1/8 give log 4, uniform ones over 8 classes log 8, a huge gap 2e4."""
    logits = torch.tensor([[2.0, 1, 1], [6.0, 1, 1]]).log()
    assert float(negative_log_likelihood(logits, torch.tensor([0, 2]))) == pytest.approx(
        math.log(4)
    )
    guess = negative_log_likelihood(torch.full((3, 8), 7.0), torch.tensor([0, 4, 7]))
    assert float(guess) == pytest.approx(math.log(8))
    assert float(negative_log_likelihood(torch.tensor([[0, 2e4]]), torch.tensor([0]))) == 2e4


def test_likelihood_of_half_precision_is_in_float32() -> None:
    logits, labels = torch.randn(6, 5).to(torch.bfloat16), torch.randint(5, (6,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = negative_log_likelihood(logits, labels)
    assert_close(value, negative_log_likelihood(logits.float(), labels), rtol=0, atol=0)


def noisy(n: int, k: int, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of true probabilities, scaled, and labels drawn from these probabilities."""
    logits = 2 * torch.randn(n, k, dtype=dtype)
    return scale * logits, logits.softmax(1).multinomial(1)[:, 0]


@pytest.mark.parametrize("scale", [0.2, 1.0, 6.0])
def test_temperature_equals_the_search_on_grids(scale: float, dtype: torch.dtype) -> None:
    logits, labels = noisy(40, 4, scale, dtype)
    found = fit_temperature(logits, labels)
    assert found.dtype == dtype
    # a function is flat at its minimum, so a search on its values finds only half of the digits
    assert float(found) == pytest.approx(
        naive.fit_temperature(logits.tolist(), labels.tolist()), rel=1e-6
    )


@pytest.mark.parametrize("scale", [0.03, 0.5, 1.0, 7.0, 100.0])
def test_temperature_of_true_frequencies_is_their_scale(scale: float, dtype: torch.dtype) -> None:
    """Logits are log-probabilities 1/2, 1/4, 1/8, 1/8 of classes seen 4, 2, 1 and 1 times."""
    logits = torch.tensor([4.0, 2, 1, 1], dtype=dtype).log().expand(8, 4) * scale
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])
    assert float(fit_temperature(logits, labels)) == pytest.approx(scale, rel=1e-6)


def test_temperature_scales_with_the_logits_and_not_with_their_offset() -> None:
    logits, labels = noisy(50, 5, 1.0, torch.float64)
    found = fit_temperature(logits, labels)
    for scale in (1e-2, 0.3, 17.0):
        assert_close(fit_temperature(scale * logits, labels), scale * found, rtol=1e-9, atol=0)
    offset = 100 * torch.randn(50, 1, dtype=torch.float64)
    assert_close(fit_temperature(logits + offset, labels), found, rtol=1e-9, atol=0)
    half = fit_temperature(logits / found, labels)
    assert_close(half, torch.ones_like(half), rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", range(8))
def test_likelihood_is_never_worse_at_the_temperature(seed: int) -> None:
    """The NLL is neither above that at 1 nor above those nearby, even for unrelated labels."""
    torch.manual_seed(seed)
    logits, labels = 10 ** (seed - 4) * torch.randn(9, 3).double(), torch.randint(3, (9,))
    found = fit_temperature(logits, labels)
    value = negative_log_likelihood(logits / found, labels)
    assert value <= negative_log_likelihood(logits, labels) + 1e-12
    for ratio in (0.9, 1.1):
        if calibration.TEMPERATURES[0] <= ratio * found <= calibration.TEMPERATURES[1]:
            assert value <= negative_log_likelihood(logits / (ratio * found), labels) + 1e-12


def test_temperature_changes_no_prediction() -> None:
    logits, labels = noisy(60, 5, 9.0, torch.float32)
    scaled = logits / fit_temperature(logits, labels)
    assert (scaled.argmax(1) == logits.argmax(1)).all()
    before = expected_calibration_error(logits.softmax(1), labels)
    assert expected_calibration_error(scaled.softmax(1), labels) < before


def test_temperature_at_its_bounds(dtype: torch.dtype) -> None:
    """If all are correct, T is the smallest; if all are wrong, T is the largest."""
    logits = torch.tensor([[3.0, 0, 0], [0, 2, 0]], dtype=dtype)
    assert float(fit_temperature(logits, torch.tensor([0, 1]))) == pytest.approx(1e-3)
    assert float(fit_temperature(logits, torch.tensor([1, 2]))) == pytest.approx(1e3)
    assert float(fit_temperature(1e4 * logits, torch.tensor([0, 1]))) == pytest.approx(1e-3)
    assert float(fit_temperature(logits[:1], torch.tensor([0]))) == pytest.approx(1e-3)


def test_temperature_of_equal_logits_is_1() -> None:
    logits = torch.tensor([[5.0, 5], [-2, -2], [0, 0]])
    assert fit_temperature(logits, torch.tensor([0, 1, 1])) == 1
    assert fit_temperature(torch.randn(4, 1), torch.zeros(4, dtype=torch.long)) == 1


def test_temperature_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = noisy(50, 5, 3.0, torch.float64)
    whole = fit_temperature(logits, labels)
    monkeypatch.setattr(calibration, "_BLOCK", 35)
    assert_close(fit_temperature(logits, labels), whole, rtol=1e-9, atol=0)


def test_temperature_is_detached_and_its_input_not_modified() -> None:
    logits = torch.randn(20, 3, requires_grad=True)
    copy = logits.detach().clone()
    assert not fit_temperature(logits, torch.randint(3, (20,))).requires_grad
    assert (logits == copy).all()


L2 = torch.zeros(2, 3)


@pytest.mark.parametrize("call", [negative_log_likelihood, fit_temperature, brier_score])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (L2, [0], r" needs logits \(B, K\) and labels \(B,\) with B >= 1, got \(2, 3\) and \(1,\)"),
        (L2[:0], [], r"with B >= 1, got \(0, 3\) and \(0,\)\."),
        (L2, [0, 3], r" needs labels in \[0, 3\), got 0 to 3\."),
        (L2, [-1, 1], r" needs labels in \[0, 3\), got -1 to 1\."),
        (L2 / 0, [0, 1], r" needs finite logits, got NaN or infinite values\."),
    ],
)
def test_errors_of_logits(call, logits: Tensor, labels: list[int], message: str) -> None:
    if call is brier_score:
        message = message.replace("logits", "probabilities")
    with pytest.raises(ValueError, match=call.__name__ + f".*{message.lstrip()}"):
        call(logits, torch.tensor(labels, dtype=torch.long))


def test_calibration_errors() -> None:
    with pytest.raises(ValueError, match=r"calibration needs bins >= 1, got 0\."):
        calibration_bins(torch.rand(2, 3).softmax(1), torch.tensor([0, 1]), 0)
    message = r"needs probabilities \(B, K\) and labels \(B,\) with B >= 1, got "
    with pytest.raises(ValueError, match=message + r"\(2, 3\) and \(3,\)\."):
        expected_calibration_error(torch.rand(2, 3), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=message + r"\(2,\) and \(2,\)\."):
        overconfidence_error(torch.rand(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=message + r"\(0, 3\) and \(0,\)\."):
        calibration_bins(torch.rand(0, 3), torch.tensor([], dtype=torch.long))
