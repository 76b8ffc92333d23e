"""OOD scores and detection against loops, pytorch_ood, and results by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from pytorch_ood.detector import KNN, EnergyBased, MaxLogit, MaxSoftmax
from pytorch_ood.metrics import functional as theirs
from reference import ood as naive
from reference.compare import assert_near
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional import ood
from mixplug.functional.ood import (
    best_detection_accuracy,
    detection_accuracy,
    energy,
    false_positive_rate,
    knn_score,
    max_logit,
    max_softmax,
)

LOGITS = torch.randn(2, 3)


def drawn(n: int, m: int, dtype: torch.dtype, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Overlapping scores; with ``ties``, there are ties within and between both sets."""
    inside, outside = torch.randn(n, dtype=dtype) + 0.8, torch.randn(m, dtype=dtype)
    return (inside.round(), outside.round()) if ties else (inside, outside)


def test_scores_by_hand(dtype: torch.dtype) -> None:
    """Odds 6 : 3 : 1 and 2 : 1 : 2; their energies are log 10 and log 2.5."""
    logits = torch.tensor([[6.0, 3, 1], [1, 0.5, 1]], dtype=dtype).log()
    expected = {max_softmax: [0.6, 0.4], max_logit: [math.log(6), 0]}
    expected[energy] = [math.log(10), math.log(2.5)]
    for score, values in expected.items():
        assert score(logits).dtype == dtype
        assert_near(score(logits), torch.tensor(values, dtype=torch.float64))
    halved = 2 * torch.tensor([math.sqrt(6) + math.sqrt(3) + 1, 2 + math.sqrt(0.5)]).log()
    assert_near(energy(logits, 2), halved)


def test_scores_are_the_negated_ones_of_pytorch_ood(dtype: torch.dtype) -> None:
    logits = 3 * torch.randn(20, 7, dtype=dtype)
    assert_near(max_softmax(logits), -MaxSoftmax.score(logits))
    assert_near(max_logit(logits), -MaxLogit.score(logits))
    assert_near(energy(logits), -EnergyBased.score(logits))
    assert_near(energy(logits, 0.3), -EnergyBased.score(logits, t=0.3))


def test_a_shift_of_the_logits_moves_all_scores_but_the_softmax() -> None:
    """The shift is so large that exp of a logit overflows."""
    logits = torch.randn(5, 4, dtype=torch.float64)
    assert_close(max_softmax(logits + 1e4), max_softmax(logits))
    assert_close(max_logit(logits + 1e4), max_logit(logits) + 1e4)
    assert_close(energy(logits + 1e4), energy(logits) + 1e4)


def test_energy_lies_between_the_maximum_and_that_plus_log_k(dtype: torch.dtype) -> None:
    logits = torch.randn(50, 8, dtype=dtype)
    assert (energy(logits) > max_logit(logits)).all()
    assert (energy(logits) <= max_logit(logits) + math.log(8)).all()
    assert_near(energy(logits, 1e-3), max_logit(logits).double())


def test_scores_of_half_precision_are_in_float32() -> None:
    logits = torch.randn(4, 5).to(torch.bfloat16)
    for score in (max_softmax, max_logit, energy):
        assert_close(score(logits), score(logits.float()), rtol=0, atol=0)


@pytest.mark.parametrize("k", [1, 3, 12])
def test_knn_score_equals_the_loop(
    k: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ood, "_BLOCK", 4)
    e, bank = torch.randn(9, 5, dtype=dtype), 3 * torch.randn(12, 5, dtype=dtype)
    value = knn_score(e, bank, k)
    assert value.dtype == dtype
    wanted = [naive.knn_score(row, bank.tolist(), k) for row in e.tolist()]
    assert_near(value, torch.tensor(wanted, dtype=torch.float64))


def test_knn_score_is_the_negated_one_of_pytorch_ood() -> None:
    e, bank = torch.randn(30, 6, dtype=torch.float64), torch.randn(80, 6, dtype=torch.float64)
    detector = KNN(None, k=50).fit_features(bank, torch.zeros(80, dtype=torch.long))
    assert_close(knn_score(e, bank), -detector.predict_features(e))


def test_knn_score_by_hand() -> None:
    """Norms have no effect. A zero embedding has distance 1 to all, an item of the bank has 0."""
    bank = torch.tensor([[2.0, 0], [0, 5.0], [-1.0, 0]])
    e = torch.tensor([[7.0, 0], [0, 0.1], [0, 0]])
    assert knn_score(e, bank, 1).tolist() == [0, 0, -1]
    assert_close(knn_score(e, bank, 2), torch.tensor([-math.sqrt(2), -math.sqrt(2), -1]))
    assert_close(knn_score(e, bank, 3), torch.tensor([-2.0, -math.sqrt(2), -1]))


def test_knn_score_of_the_bank_itself_is_exactly_0() -> None:
    e = torch.randn(300, 64)
    assert (knn_score(e, e, 1) == 0).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), [(40, 25), (1, 30), (20, 1), (60, 60)])
def test_detection_equals_the_loops(n: int, m: int, ties: bool, dtype: torch.dtype) -> None:
    inside, outside = drawn(n, m, dtype, ties)
    lists = inside.tolist(), outside.tolist()
    for threshold in (-1.0, 0.0, 0.3, float(inside[0])):
        value = detection_accuracy(inside, outside, threshold)
        assert value.dtype == dtype
        assert float(value) == pytest.approx(naive.detection_accuracy(*lists, threshold))
    accuracy, at = best_detection_accuracy(inside, outside)
    wanted = naive.best_detection_accuracy(*lists)
    assert (float(accuracy), float(at)) == (pytest.approx(wanted[0]), wanted[1])
    assert accuracy.dtype == at.dtype == dtype
    assert_close(detection_accuracy(inside, outside, at), accuracy)
    for percent in (1, 50, 90, 95, 99, 100):
        value = false_positive_rate(inside, outside, percent / 100)
        assert float(value) == pytest.approx(naive.false_positive_rate(*lists, percent))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [20, 33, 60, 100])
def test_false_positive_rate_is_that_of_pytorch_ood_with_sides_swapped(n: int, ties: bool) -> None:
    """In pytorch_ood the positive class is out-of-distribution, marked by a label below 0."""
    inside, outside = drawn(n, 50, torch.float64, ties)
    labels = torch.cat([torch.full((n,), -1), torch.zeros(50, dtype=torch.long)])
    for tpr in (0.8, 0.95, 1.0):
        wanted = theirs.fpr_at_tpr(torch.cat([inside, outside]), labels, tpr)
        assert float(false_positive_rate(inside, outside, tpr)) == float(wanted)


def test_detection_by_hand(dtype: torch.dtype) -> None:
    """Scores at the threshold are accepted: 3 of 4 inside accepted, 1 of 2 outside rejected."""
    inside = torch.tensor([0.9, 0.5, 0.6, 0.4], dtype=dtype)
    outside = torch.tensor([0.5, 0.1], dtype=dtype)
    assert float(detection_accuracy(inside, outside, 0.5)) == float(Fraction(3, 8) + Fraction(1, 4))
    accuracy, at = best_detection_accuracy(inside, outside)  # 1 and 1/2 at 0.4, 1/2 and 1 at 0.6
    assert (float(accuracy), at) == (0.75, inside[3])
    assert float(false_positive_rate(inside, outside, 0.75)) == 0.5
    assert float(false_positive_rate(inside, outside, 0.5)) == 0


def test_55_of_100_are_55_percent() -> None:
    """In floating point, 0.55 * 100 exceeds 55; with the 56th score, the FPR would be higher."""
    assert 0.55 * 100 > 55
    inside = torch.arange(100.0)
    outside = torch.tensor([44.0, 45.0])
    assert float(false_positive_rate(inside, outside, 0.55)) == 0.5  # threshold 45
    assert float(false_positive_rate(inside, outside, 0.551)) == 1  # threshold 44


@pytest.mark.parametrize(
    ("inside", "outside", "half", "best", "at", "rate"),
    [
        ([0.8, 0.9], [0.1, 0.2, 0.3], 1, 1, 0.8, 0),  # perfect
        ([0.1, 0.2], [0.8, 0.9], 0, 0.5, 0.1, 1),  # reversed
        ([0.7, 0.7], [0.7], 0.5, 0.5, 0.7, 1),  # constant: all are accepted
        ([0.2, 0.2], [0.2], 0.5, 0.5, 0.2, 1),  # constant: none is
    ],
)
def test_detection_of_degenerate_scores(
    inside: list[float],
    outside: list[float],
    half: float,
    best: float,
    at: float,
    rate: float,
    dtype: torch.dtype,
) -> None:
    scores = torch.tensor(inside, dtype=dtype), torch.tensor(outside, dtype=dtype)
    assert float(detection_accuracy(*scores, 0.5)) == half
    accuracy, threshold = best_detection_accuracy(*scores)
    assert (float(accuracy), float(threshold)) == (best, pytest.approx(at))
    assert float(false_positive_rate(*scores)) == rate


def test_the_sizes_of_the_two_sets_do_not_matter() -> None:
    inside, outside = drawn(30, 20, torch.float64, ties=True)
    many = inside.repeat(50)
    for call in (
        lambda a, b: detection_accuracy(a, b, 0.5),
        lambda a, b: best_detection_accuracy(a, b)[0],
        false_positive_rate,
    ):
        assert_close(call(many, outside), call(inside, outside))


ONE = torch.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_softmax(ONE), r"max_softmax needs logits \(B, K\) with K >= 1, got \(3,\)\."),
        (lambda: max_logit(torch.ones(2, 0)), r"max_logit needs .* got \(2, 0\)\."),
        (lambda: energy(LOGITS, 0), r"energy needs a temperature > 0, got 0\."),
        (
            lambda: knn_score(LOGITS, LOGITS, 3),
            r"knn_score needs k between 1 and 2, the size of the bank, got 3\.",
        ),
        (lambda: knn_score(LOGITS, torch.ones(9, 2), 1), r"of the same width, got 3 and 2\."),
        (lambda: knn_score(LOGITS / 0, LOGITS, 1), r"knn_score needs finite queries"),
        (
            lambda: detection_accuracy(ONE, ONE[:0], 0.5),
            r"detection_accuracy needs outside scores \(N,\) with N >= 1, got \(0,\)\.",
        ),
        (
            lambda: best_detection_accuracy(LOGITS, ONE),
            r"best_detection_accuracy needs inside scores \(N,\) with N >= 1, got \(2, 3\)\.",
        ),
        (
            lambda: false_positive_rate(torch.tensor([1, float("nan"), float("inf")]), ONE),
            r"needs finite scores, but 2 of 3 inside scores are NaN or infinite\.",
        ),
        (lambda: false_positive_rate(ONE, ONE, 95), r"needs tpr in \(0, 1\], got 95\."),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
