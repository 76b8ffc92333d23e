"""Retrieval scores against loops over neighbors, and fractions computed by hand."""

from __future__ import annotations

import pytest
import torch
from reference import neighbors as naive
from torch import Tensor

from mixplug.functional.neighbors import map_at_r, nmi, precision_at_1, r_precision, recall_at_k

# Three queries of classes 0, 1, 2: hits at ranks {2, 4}, {1, 2, 4}, {}.
NEIGHBORS = torch.tensor([[1, 0, 2, 0], [1, 1, 0, 1], [0, 1, 0, 1]])
LABELS = torch.tensor([0, 1, 2])


def labeled(queries: int, k: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random neighbors, some of them missing; R is random in 0 to k."""
    neighbors = torch.randint(-1, classes, (queries, k))
    return neighbors, torch.randint(classes, (queries,)), torch.randint(k + 1, (queries,))


def test_recall_by_hand() -> None:
    assert recall_at_k(NEIGHBORS, LABELS, (1, 2, 4)) == {1: 1 / 3, 2: 2 / 3, 4: 2 / 3}
    assert precision_at_1(NEIGHBORS, LABELS) == 1 / 3


def test_r_metrics_by_hand() -> None:
    """R = 2, 4, 1. R-precision 1/2, 3/4, 0; MAP@R (1/2)/2, (1 + 1 + 3/4)/4, 0."""
    relevant = torch.tensor([2, 4, 1])
    assert r_precision(NEIGHBORS, LABELS, relevant) == pytest.approx((1 / 2 + 3 / 4) / 3)
    assert map_at_r(NEIGHBORS, LABELS, relevant) == pytest.approx((1 / 4 + 11 / 16) / 3)


def test_queries_without_relevant_items_are_excluded_from_r_metrics() -> None:
    relevant = torch.tensor([2, 4, 0])
    assert r_precision(NEIGHBORS, LABELS, relevant) == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert map_at_r(NEIGHBORS, LABELS, relevant) == pytest.approx((1 / 4 + 11 / 16) / 2)


@pytest.mark.parametrize(("queries", "k", "classes"), [(50, 12, 4), (1, 3, 1), (200, 5, 9)])
def test_scores_equal_the_loops(queries: int, k: int, classes: int) -> None:
    neighbors, labels, relevant = labeled(queries, k, classes)
    relevant[0] = k
    rows, wanted, r = neighbors.tolist(), labels.tolist(), relevant.tolist()
    for each, value in recall_at_k(neighbors, labels, range(1, k + 1)).items():
        assert value == pytest.approx(naive.recall_at_k(rows, wanted, each), abs=1e-12)
    assert precision_at_1(neighbors, labels) == naive.recall_at_k(rows, wanted, 1)
    expected = naive.r_precision(rows, wanted, r)
    assert r_precision(neighbors, labels, relevant) == pytest.approx(expected, abs=1e-12)
    expected = naive.map_at_r(rows, wanted, r)
    assert map_at_r(neighbors, labels, relevant) == pytest.approx(expected, abs=1e-12)


def test_labels_beyond_float32_remain_distinct() -> None:
    """2^24 and 2^24 + 1 are equal in float32."""
    labels = torch.tensor([1 << 24])
    assert recall_at_k(torch.tensor([[(1 << 24) + 1]]), labels, [1]) == {1: 0.0}


def test_nmi_equals_the_loop_and_knows_its_limits() -> None:
    labels, clusters = torch.randint(4, (60,)), torch.randint(6, (60,))
    expected = naive.nmi(labels.tolist(), clusters.tolist())
    assert nmi(labels, clusters) == pytest.approx(expected, abs=1e-9)
    assert nmi(labels, (labels + 1) % 4) == pytest.approx(1)
    assert nmi(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])) == pytest.approx(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: recall_at_k(NEIGHBORS, LABELS, [1, 5]),
            r"recall_at_k needs 5 neighbors per query, got only 4\.",
        ),
        (lambda: recall_at_k(NEIGHBORS, LABELS, [0]), r"all of them >= 1, got \[0\]\."),
        (lambda: recall_at_k(NEIGHBORS, LABELS, []), r"needs at least one K"),
        (lambda: recall_at_k(NEIGHBORS, LABELS[:2], [1]), r"got \(3, 4\) and \(2,\)\."),
        (lambda: precision_at_1(NEIGHBORS[:0], LABELS[:0]), r"Q >= 1, got \(0, 4\) and \(0,\)\."),
        (lambda: recall_at_k(NEIGHBORS, LABELS - 1, [1]), r"query labels >= 0, got -1\. "),
        (
            lambda: map_at_r(NEIGHBORS, LABELS, torch.tensor([1, 5, 0])),
            r"map_at_r needs 5 neighbors per query, got only 4\.",
        ),
        (
            lambda: r_precision(NEIGHBORS, LABELS, torch.zeros(3, dtype=torch.long)),
            r"r_precision needs at least one query with a relevant item in the gallery, got none\.",
        ),
        (lambda: map_at_r(NEIGHBORS, LABELS, torch.ones(2)), r"same shape, got \(2,\) and \(3,\)"),
        (lambda: nmi(LABELS, LABELS[:2]), r"nmi needs .* got \(3,\) and \(2,\)\."),
        (lambda: nmi(LABELS[:0], LABELS[:0]), r"with B >= 1, got \(0,\) and \(0,\)\."),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
