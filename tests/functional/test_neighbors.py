"""Scores of neighbours against loops over them, and fractions worked out by hand."""

from __future__ import annotations

import pytest
import torch
from reference import neighbors as naive
from reference.compare import assert_near
from torch import Tensor

from mixplug.bench.measure import peak_bytes
from mixplug.functional import neighbors as module
from mixplug.functional.neighbors import (
    map_at_r,
    nearest,
    nmi,
    precision_at_1,
    r_precision,
    recall_at_k,
)

# Three queries of classes 0, 1, 2: hits at ranks {2, 4}, {1, 2, 4}, {}.
NEIGHBORS = torch.tensor([[1, 0, 2, 0], [1, 1, 0, 1], [0, 1, 0, 1]])
LABELS = torch.tensor([0, 1, 2])


def labelled(queries: int, k: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbours at random, some missing; R anything from 0 to k."""
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


def test_queries_without_a_relevant_item_are_left_out_of_r_metrics() -> None:
    relevant = torch.tensor([2, 4, 0])
    assert r_precision(NEIGHBORS, LABELS, relevant) == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert map_at_r(NEIGHBORS, LABELS, relevant) == pytest.approx((1 / 4 + 11 / 16) / 2)


@pytest.mark.parametrize(("queries", "k", "classes"), [(50, 12, 4), (1, 3, 1), (200, 5, 9)])
def test_scores_equal_the_loops(queries: int, k: int, classes: int) -> None:
    neighbors, labels, relevant = labelled(queries, k, classes)
    relevant[0] = k
    rows, wanted, r = neighbors.tolist(), labels.tolist(), relevant.tolist()
    for each, value in recall_at_k(neighbors, labels, range(1, k + 1)).items():
        assert value == pytest.approx(naive.recall_at_k(rows, wanted, each), abs=1e-12)
    assert precision_at_1(neighbors, labels) == naive.recall_at_k(rows, wanted, 1)
    expected = naive.r_precision(rows, wanted, r)
    assert r_precision(neighbors, labels, relevant) == pytest.approx(expected, abs=1e-12)
    expected = naive.map_at_r(rows, wanted, r)
    assert map_at_r(neighbors, labels, relevant) == pytest.approx(expected, abs=1e-12)


def test_labels_beyond_float32_stay_apart() -> None:
    """2^24 and 2^24 + 1 are one number in float32."""
    labels = torch.tensor([1 << 24])
    assert recall_at_k(torch.tensor([[(1 << 24) + 1]]), labels, [1]) == {1: 0.0}


def test_nmi_equals_the_loop_and_knows_its_limits() -> None:
    labels, clusters = torch.randint(4, (60,)), torch.randint(6, (60,))
    expected = naive.nmi(labels.tolist(), clusters.tolist())
    assert nmi(labels, clusters) == pytest.approx(expected, abs=1e-9)
    assert nmi(labels, (labels + 1) % 4) == pytest.approx(1)
    assert nmi(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])) == pytest.approx(0)


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("block", [None, (7, 20), (3, 5), (64, 1)])
def test_nearest_equals_the_loop(
    metric: str, block: tuple[int, int] | None, dtype: torch.dtype
) -> None:
    queries, gallery = torch.randn(23, 6, dtype=dtype), torch.randn(61, 6, dtype=dtype)
    values, ids = nearest(queries, gallery, 9, metric, block)
    expected = naive.neighbors(queries.tolist(), gallery.tolist(), 9, metric)
    assert ids.tolist() == expected[1]
    assert values.dtype == dtype
    assert_near(values, torch.tensor(expected[0], dtype=torch.float64))


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("block", [None, (5, 16), (4, 3)])
@pytest.mark.parametrize("k", [1, 4, 29, 40])
def test_ties_come_by_id_also_where_k_cuts_them(
    metric: str, block: tuple[int, int] | None, k: int
) -> None:
    """Coordinates -1, 0, 1: all products are exact, and most distances are equal."""
    queries = torch.randint(-1, 2, (12, 3)).float()
    gallery = torch.randint(-1, 2, (40, 3)).float()
    values, ids = nearest(queries, gallery, k, metric, block)
    expected = naive.neighbors(queries.tolist(), gallery.tolist(), k, metric)
    assert (values.tolist(), ids.tolist()) == expected


def test_one_point_many_times() -> None:
    values, ids = nearest(torch.ones(3, 4), torch.ones(90, 4), 70, block=(2, 32))
    assert ids.tolist() == [list(range(70))] * 3
    assert (values == 4).all()


def test_blocks_do_not_change_a_bit() -> None:
    """What the merge of shards relies on, with a last block of one item."""
    queries, gallery = torch.randn(33, 64), torch.randn(257, 64)
    whole = nearest(queries, gallery, 20, "l2")
    for block in ((33, 256), (32, 64), (1, 100)):
        parts = nearest(queries, gallery, 20, "l2", block)
        assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])


def test_memory_is_bounded_by_the_block() -> None:
    queries, gallery = torch.randn(600, 8), torch.randn(5000, 8)
    whole = 600 * 5000 * 4
    assert peak_bytes(lambda: nearest(queries, gallery, 5, "l2", (100, 500))) < whole / 20
    assert peak_bytes(lambda: nearest(queries, gallery, 5, "l2", (600, 5000))) > whole


def test_the_default_block_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SCORES", 1 << 20)
    monkeypatch.setattr(module, "_ROWS", 256)
    queries, gallery = torch.randn(600, 8), torch.randn(5000, 8)
    assert peak_bytes(lambda: nearest(queries, gallery, 5)) < 3 << 20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: recall_at_k(NEIGHBORS, LABELS, [1, 5]),
            r"recall_at_k needs 5 neighbours per query, got 4: gallery smaller than K\.",
        ),
        (lambda: recall_at_k(NEIGHBORS, LABELS, [0]), r"all of them >= 1, got \[0\]\."),
        (lambda: recall_at_k(NEIGHBORS, LABELS, []), r"needs at least one K"),
        (lambda: recall_at_k(NEIGHBORS, LABELS[:2], [1]), r"got \(3, 4\) and \(2,\)\."),
        (lambda: precision_at_1(NEIGHBORS[:0], LABELS[:0]), r"Q >= 1, got \(0, 4\) and \(0,\)\."),
        (lambda: recall_at_k(NEIGHBORS, LABELS - 1, [1]), r"query labels >= 0, got -1: "),
        (
            lambda: map_at_r(NEIGHBORS, LABELS, torch.tensor([1, 5, 0])),
            r"map_at_r needs 5 neighbours per query, got 4: gallery smaller than K\.",
        ),
        (
            lambda: r_precision(NEIGHBORS, LABELS, torch.zeros(3, dtype=torch.long)),
            r"r_precision has no query left: none has a relevant item in the gallery\.",
        ),
        (lambda: map_at_r(NEIGHBORS, LABELS, torch.ones(2)), r"one shape, got \(2,\) and \(3,\)"),
        (lambda: nmi(LABELS, LABELS[:2]), r"nmi needs .* got \(3,\) and \(2,\)\."),
        (lambda: nmi(LABELS[:0], LABELS[:0]), r"with B >= 1, got \(0,\) and \(0,\)\."),
        (
            lambda: nearest(torch.ones(2, 3), torch.ones(4, 3), 5),
            r"between 1 and the gallery's 4 items, got 5: gallery smaller than K\.",
        ),
        (
            lambda: nearest(torch.ones(2, 3), torch.ones(4, 3), 1, "cos"),
            r"nearest needs metric in \('ip', 'l2'\), got 'cos'\.",
        ),
        (
            lambda: nearest(torch.ones(2, 3), torch.ones(4, 2), 1),
            r"queries and gallery of one width, got 3 and 2\.",
        ),
        (
            lambda: nearest(torch.ones(2, 3) * float("nan"), torch.ones(4, 3), 1),
            r"nearest needs finite queries, but there are NaN or infinite values\.",
        ),
        (
            lambda: nearest(torch.ones(2, 3), torch.ones(4, 3) / 0, 1),
            r"nearest needs finite gallery",
        ),
        (lambda: nearest(torch.ones(3), torch.ones(4, 3), 1), r"B >= 1 and D >= 1, got \(3,\)\."),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
