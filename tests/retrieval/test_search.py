"""Search with faiss and with PyTorch against a loop that sorts all items."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from points import grid
from reference import neighbors as naive
from torch import Tensor
from torch.testing import assert_close

from mixplug.retrieval import Index, search

module = sys.modules["mixplug.retrieval.search"]  # its function has the same name
BACKENDS = ("faiss", "torch")
METRICS = ("ip", "l2", "cosine")


def clusters(count: int, width: int = 16, centers: int = 40) -> Tensor:
    return torch.randn(centers, width).mul(4)[torch.randint(centers, (count,))] + torch.randn(
        count, width
    )


def check(found: tuple[Tensor, Tensor], expected: tuple[list, list]) -> None:
    assert found[0].dtype == torch.float32 and found[1].dtype == torch.int64
    assert found[1].tolist() == expected[1]
    assert_close(found[0], torch.tensor(expected[0]), rtol=1e-4, atol=1e-4)


@pytest.fixture
def no_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("queries", [50, 3])  # faiss computes few queries by another method
def test_search_equals_the_loop(backend: str, metric: str, queries: int) -> None:
    q, g = torch.randn(queries, 8), torch.randn(70, 8)
    found = search(q, g, 7, backend=backend, metric=metric)
    check(found, naive.neighbors(q.tolist(), g.tolist(), 7, metric))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_query_is_excluded_by_its_id(backend: str, metric: str) -> None:
    """Every third item occurs twice, so the first hit is not always the query."""
    e = torch.randn(60, 8)
    e[1::3] = e[::3]
    found = search(e, e, 5, exclude=torch.arange(60), backend=backend, metric=metric)
    assert not (found[1] == torch.arange(60)[:, None]).any()
    twins = torch.arange(0, 60, 3)
    if metric != "ip":
        assert found[1][twins, 0].tolist() == (twins + 1).tolist()
        assert found[1][twins + 1, 0].tolist() == twins.tolist()
    expected = naive.neighbors(e.tolist(), e.tolist(), 5, metric, list(range(60)))
    assert_close(found[0], torch.tensor(expected[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 4, 30, 58])
def test_ties_are_in_the_order_of_ids(backend: str, metric: str, k: int) -> None:
    """If the own id is tied and not among the k + 1 nearest, the last neighbor is removed."""
    e = grid(59)
    exclude = torch.arange(59)
    exclude[::4] = -1
    found = search(e, e, k, exclude=exclude, backend=backend, metric=metric)
    expected = naive.neighbors(e.tolist(), e.tolist(), k, metric, exclude.tolist())
    assert found[0].tolist() == expected[0]
    assert found[1].tolist() == expected[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_equal_items(backend: str) -> None:
    """From 100 neighbors on, faiss uses a reservoir, whose order is arbitrary."""
    e = grid(400, 2)
    found = search(e[:50], e, 120, exclude=torch.arange(50), backend=backend, metric="l2")
    expected = naive.neighbors(e[:50].tolist(), e.tolist(), 120, "l2", list(range(50)))
    assert found[1].tolist() == expected[1]


@pytest.mark.parametrize("metric", METRICS)
def test_faiss_and_torch_find_the_same_neighbors(metric: str) -> None:
    e = torch.randn(3000, 32, generator=torch.Generator().manual_seed(1))
    own = torch.arange(3000)
    a, b = (search(e, e, 20, exclude=own, backend=each, metric=metric) for each in BACKENDS)
    assert_close(a[0], b[0], rtol=1e-4, atol=1e-4)
    gap = (b[0][:, 1:] - b[0][:, :-1]).abs().min(1)[0]
    distinct = gap > 1e-4  # distances further apart than what rounding can do
    assert distinct.sum() > 500
    assert torch.equal(a[1][distinct], b[1][distinct])


@pytest.mark.parametrize("backend", BACKENDS)
def test_blocks_of_queries_are_concatenated(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 32)
    e = torch.randn(70, 8)
    found = search(e, e, 4, exclude=torch.arange(70), backend=backend)
    check(found, naive.neighbors(e.tolist(), e.tolist(), 4, "ip", list(range(70))))


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_exclusion_the_whole_gallery_is_searched(backend: str) -> None:
    """As for In-Shop, where queries and gallery may contain the same image."""
    g = torch.randn(9, 4)
    _, ids = search(g[:3], g, 9, backend=backend, metric="cosine")
    assert ids[:, 0].tolist() == [0, 1, 2]
    assert ids.sort(1)[0].tolist() == [list(range(9))] * 3


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("index", ["hnsw", "ivf"])
def test_approximate_indexes_find_most_in_clusters(index: str, metric: str) -> None:
    e = clusters(3000)
    own = torch.arange(3000)
    exact = search(e, e, 10, exclude=own, backend="torch", metric=metric)[1]
    values, found = search(e, e, 10, exclude=own, index=index, metric=metric)
    hits = (found[:, :, None] == exact[:, None]).any(2).float().mean()
    assert hits > 0.95
    assert not (found == own[:, None]).any()
    steps = (values[:, 1:] - values[:, :-1]) * (1 if metric == "l2" else -1)
    assert (steps >= 0).all()


def test_missing_neighbors_of_an_approximate_index_are_minus_one() -> None:
    """Only one of two distant lists of an IVF is searched, so half of the items are missed."""
    gallery = torch.cat([torch.randn(50, 4) - 50, torch.randn(50, 4) + 50])
    index = Index("ivf", "l2").build(gallery)
    assert index.store.native.nlist == 2
    index.store.native.nprobe = 1
    exclude = torch.tensor([0, 1, 2, -1, -1])  # a missing neighbor is not removed
    _, ids = index.search(gallery[:5], 98, exclude=exclude)
    assert (ids >= 0).sum(1).tolist() == [49, 49, 49, 50, 50]
    assert (ids < 50).all() and (ids[:, 50:] == -1).all()
    assert ids[3:, 0].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("index", "backend"), [("flat", "torch"), ("flat", "faiss"), ("hnsw", "auto"), ("ivf", "auto")]
)
def test_a_saved_index_finds_the_same_neighbors(index: str, backend: str, tmp_path: Path) -> None:
    gallery, queries = clusters(300), clusters(20)
    built = Index(index, "cosine", backend).build(gallery)
    built.save(tmp_path / "gallery.index")
    loaded = Index.load(tmp_path / "gallery.index")
    assert (loaded.index, loaded.metric, len(loaded)) == (index, "cosine", 300)
    a, b = built.search(queries, 8), loaded.search(queries, 8)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    with pytest.raises(ValueError, match=r"queries of width 16, the width of the gallery, got 5\."):
        loaded.search(torch.randn(3, 5), 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_saved_index_must_match_its_metadata(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index(backend=backend).build(torch.randn(8, 4)).save(path)
    facts = json.loads((tmp_path / "index.json").read_text())
    assert facts == {
        "backend": backend, "index": "flat", "metric": "ip", "width": 4, "count": 8,
    }  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps({**facts, "width": 5}))
    with pytest.raises(ValueError, match=r"has 8 embeddings of width 4, but .* 8 of width 5\."):
        Index.load(path)


def test_without_faiss_torch_searches(no_faiss: None) -> None:
    e = torch.randn(40, 6)
    index = Index().build(e)
    assert index.store.backend == "torch"
    check(index.search(e, 3), naive.neighbors(e.tolist(), e.tolist(), 3, "ip"))
    line = (
        r"needs faiss, which is not installed\. Install it with: uv sync --inexact --extra metric"
    )
    with pytest.raises(ImportError, match=line):
        search(e, e, 3, backend="faiss")
    with pytest.raises(ImportError, match=line):
        search(e, e, 3, index="hnsw")


def test_auto_selects_faiss_and_torch_can_be_requested() -> None:
    assert Index().build(torch.randn(5, 3)).store.backend == "faiss"
    assert Index(backend="torch").build(torch.randn(5, 3)).store.backend == "torch"


def test_importing_the_package_loads_neither_faiss_nor_scikit_learn() -> None:
    code = (
        "import sys, mixplug.retrieval, mixplug.metrics;"
        "print([m for m in ('faiss', 'sklearn', 'numpy.testing') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "faiss" not in run.stdout and "sklearn" not in run.stdout


E = torch.ones(4, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: search(E, E, 1, backend="scann"),
            r"search needs backend in \('auto', 'faiss', 'torch'\), got 'scann'\.",
        ),
        (
            lambda: search(E, E, 1, index="pq"),
            r"search needs index in \('flat', 'hnsw', 'ivf'\), got 'pq'\.",
        ),
        (
            lambda: search(E, E, 1, metric="l1"),
            r"search needs metric in \('ip', 'l2', 'cosine'\), got 'l1'\.",
        ),
        (
            lambda: search(E, E, 1, backend="torch", index="ivf"),
            r"The index 'ivf' needs backend 'faiss' or 'auto', got 'torch'\.",
        ),
        (lambda: search(E, E, 5), r"between 1 and 4, got 5\. The gallery has 4 items\."),
        (
            lambda: search(E, E, 4, exclude=torch.arange(4)),
            r"got 4\. The gallery has 4 items, one of them excluded\.",
        ),
        (lambda: search(E, E, 0), r"between 1 and 4, got 0"),
        (lambda: search(E, E, 1, exclude=torch.arange(3)), r"got \(3,\) for 4 queries\."),
        (lambda: search(E, E, 1, exclude=torch.arange(4) + 1), r"exclude < 4, .* got 4\."),
        (lambda: search(E / 0, E, 1), r"search needs finite queries"),
        (lambda: search(E, E * float("nan"), 1), r"search needs finite gallery"),
        (
            lambda: search(E, E * torch.tensor([1, 1, 0, 1])[:, None], 1, metric="cosine"),
            r"'cosine' needs nonzero embeddings, but row 2 is zero\.",
        ),
        (
            lambda: search(torch.ones(2, 3), E, 1),
            r"queries of width 2, the width of the gallery, got 3\.",
        ),
        (lambda: Index().search(E, 1), r"has no gallery\. Call build or load first\."),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
