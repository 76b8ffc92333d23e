"""Exact search against a loop that sorts all items, and its memory."""

from __future__ import annotations

import pytest
import torch
from reference import neighbors as naive
from reference.compare import assert_near

from mixplug.bench.measure import peak_bytes
from mixplug.functional import exact_search as module
from mixplug.functional.exact_search import nearest


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
def test_ties_are_in_the_order_of_ids_even_at_the_last_neighbor(
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
    """The merge of shards relies on this. The last block has one item."""
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
            lambda: nearest(torch.ones(2, 3), torch.ones(4, 3), 5),
            r"between 1 and 4, the size of the gallery, got 5\.",
        ),
        (
            lambda: nearest(torch.ones(2, 3), torch.ones(4, 3), 1, "cos"),
            r"nearest needs metric in \('ip', 'l2'\), got 'cos'\.",
        ),
        (
            lambda: nearest(torch.ones(2, 3), torch.ones(4, 2), 1),
            r"queries and gallery of the same width, got 3 and 2\.",
        ),
        (
            lambda: nearest(torch.ones(2, 3) * float("nan"), torch.ones(4, 3), 1),
            r"nearest needs finite queries, got NaN or infinite values\.",
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
