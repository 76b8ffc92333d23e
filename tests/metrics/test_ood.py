"""The numbers of detection against loops over pairs, torchmetrics, and degenerate scores."""

from __future__ import annotations

import pytest
import torch
from reference import ood as naive
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from mixplug.functional.ood import false_positive_rate
from mixplug.metrics.ood import ood_scores


def both(n: int, m: int, dtype: torch.dtype, ties: bool) -> tuple[Tensor, Tensor]:
    inside, outside = torch.randn(n, dtype=dtype) + 0.8, torch.randn(m, dtype=dtype)
    return (inside.round(), outside.round()) if ties else (inside, outside)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), [(30, 45), (1, 20), (25, 1)])
def test_scores_equal_the_loops(n: int, m: int, ties: bool, dtype: torch.dtype) -> None:
    inside, outside = both(n, m, dtype, ties)
    lists = inside.tolist(), outside.tolist()
    negated = [-s for s in lists[1]], [-s for s in lists[0]]
    best, at = naive.best_detection_accuracy(*lists)
    assert ood_scores(inside, outside, 0.5) == {
        "auroc": pytest.approx(naive.auroc(*lists)),
        "aupr_in": pytest.approx(naive.average_precision(*lists)),
        "aupr_out": pytest.approx(naive.average_precision(*negated)),
        "fpr95": pytest.approx(naive.false_positive_rate(*lists, 95)),
        "det_acc": pytest.approx(naive.detection_accuracy(*lists, 0.5)),
        "det_acc_best": pytest.approx(best),
        "threshold_best": at,
    }


@pytest.mark.parametrize("ties", [False, True])
def test_areas_are_those_of_torchmetrics(ties: bool) -> None:
    inside, outside = both(70, 50, torch.float64, ties)
    score = torch.cat([inside, outside]).sigmoid()
    positive = (torch.arange(120) < 70).long()
    found = ood_scores(inside, outside)
    assert found["auroc"] == pytest.approx(float(binary_auroc(score, positive)), abs=1e-6)
    for name, s, y in (("aupr_in", score, positive), ("aupr_out", 1 - score, 1 - positive)):
        wanted = binary_average_precision(s, y)
        assert found[name] == pytest.approx(float(wanted), abs=1e-6)


def test_by_hand() -> None:
    """Inside at ranks 1, 3 and 4 of 5: AUROC 4/6; AP (1 + 2/3 + 3/4) / 3; outside from below:
    ranks 1 and 4, so AP (1 + 2/4) / 2."""
    found = ood_scores(torch.tensor([0.9, 0.6, 0.5]), torch.tensor([0.7, 0.1]))
    assert found["auroc"] == pytest.approx(4 / 6)
    assert found["aupr_in"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found["aupr_out"] == pytest.approx((1 + 2 / 4) / 2)
    assert found["fpr95"] == 0.5
    assert found["det_acc_best"] == 0.75  # all inside and half of the others at 0.5
    assert "det_acc" not in found


def test_perfect_scores() -> None:
    found = ood_scores(torch.tensor([0.8, 0.9]), torch.tensor([0.3, 0.1, 0.2]), 0.5)
    assert found["fpr95"] == 0 and found.pop("threshold_best") == pytest.approx(0.8)
    assert all(value == 1 for name, value in found.items() if name != "fpr95")


def test_reversed_scores() -> None:
    """Average precision of 2 positives behind 3: (1/4 + 2/5) / 2; of 3 behind 2 likewise."""
    found = ood_scores(torch.tensor([0.1, 0.2]), torch.tensor([0.7, 0.8, 0.9]), 0.5)
    assert (found["auroc"], found["fpr95"], found["det_acc"]) == (0, 1, 0)
    assert found["det_acc_best"] == 0.5
    assert found["aupr_in"] == pytest.approx((1 / 4 + 2 / 5) / 2)
    assert found["aupr_out"] == pytest.approx((1 / 3 + 2 / 4 + 3 / 5) / 3)


def test_constant_scores_say_nothing() -> None:
    """Half of everything, and the share of positives: the trapezoid would have given more."""
    found = ood_scores(torch.full((3,), 0.7), torch.full((5,), 0.7), 0.5)
    assert (found["auroc"], found["det_acc"], found["det_acc_best"]) == (0.5, 0.5, 0.5)
    assert (found["aupr_in"], found["aupr_out"], found["fpr95"]) == (3 / 8, 5 / 8, 1)


def test_close_scores_are_no_ties() -> None:
    """Softmax near 1: one float apart in float32, which must not be lost on the way."""
    high = torch.tensor([1.0]).nextafter(torch.tensor([2.0]))
    assert ood_scores(high, torch.ones(1))["auroc"] == 1
    assert float(false_positive_rate(high, torch.ones(1))) == 0


def test_scores_need_no_order_and_no_gradient() -> None:
    inside, outside = torch.randn(20, requires_grad=True), torch.randn(20, requires_grad=True)
    order = torch.randperm(20)
    assert ood_scores(inside, outside) == ood_scores(inside[order], outside[order.flip(0)])


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        ([], [1.0], r"ood_scores needs inside scores \(N,\) with N >= 1, got \(0,\)\."),
        ([1.0], [], r"ood_scores needs outside scores \(N,\) with N >= 1, got \(0,\)\."),
        ([1.0, float("nan")], [1.0], r"1 of 2 inside scores are NaN or infinite\."),
    ],
)
def test_errors(inside: list[float], outside: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ood_scores(torch.tensor(inside), torch.tensor(outside))
