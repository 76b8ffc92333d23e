"""Search by faiss, by torch and by two processes against a loop that sorts all items."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from reference import neighbors as naive
from torch import Tensor
from torch.testing import assert_close

from mixplug.bench.measure import peak_bytes
from mixplug.retrieval import Index, kmeans_clusters, memory_estimate, search, sharded_search
from mixplug.retrieval.search import gpu_faiss_works

module = sys.modules["mixplug.retrieval.search"]  # its function has the same name
BACKENDS = ("faiss", "torch")
METRICS = ("ip", "l2", "cosine")
SECONDS = 120


def grid(count: int, width: int = 3) -> Tensor:
    """Coordinates -1, 0, 1, never all 0: products are exact and most distances are equal."""
    points = torch.randint(-1, 2, (count, width)).float()
    points[:, 0] += (points == 0).all(1)
    return points


def clusters(count: int, width: int = 16, centres: int = 40) -> Tensor:
    return torch.randn(centres, width).mul(4)[torch.randint(centres, (count,))] + torch.randn(
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
@pytest.mark.parametrize("queries", [50, 3])  # faiss computes few queries differently
def test_search_equals_the_loop(backend: str, metric: str, queries: int) -> None:
    q, g = torch.randn(queries, 8), torch.randn(70, 8)
    found = search(q, g, 7, backend=backend, metric=metric)
    check(found, naive.neighbors(q.tolist(), g.tolist(), 7, metric))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_query_is_left_out_by_its_id(backend: str, metric: str) -> None:
    """Every third item is there twice, so the first hit is not always the query."""
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
def test_ties_come_by_id(backend: str, metric: str, k: int) -> None:
    """Also where the own id is beyond the k + 1 nearest, among equals: then the last one goes."""
    e = grid(59)
    exclude = torch.arange(59)
    exclude[::4] = -1
    found = search(e, e, k, exclude=exclude, backend=backend, metric=metric)
    expected = naive.neighbors(e.tolist(), e.tolist(), k, metric, exclude.tolist())
    assert found[0].tolist() == expected[0]
    assert found[1].tolist() == expected[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_equal_items(backend: str) -> None:
    """120 neighbours: faiss keeps a reservoir from 100 on, and orders it as it likes."""
    e = grid(400, 2)
    found = search(e[:50], e, 120, exclude=torch.arange(50), backend=backend, metric="l2")
    expected = naive.neighbors(e[:50].tolist(), e.tolist(), 120, "l2", list(range(50)))
    assert found[1].tolist() == expected[1]


@pytest.mark.parametrize("metric", METRICS)
def test_faiss_and_torch_find_the_same(metric: str) -> None:
    e = torch.randn(3000, 32, generator=torch.Generator().manual_seed(1))
    own = torch.arange(3000)
    a, b = (search(e, e, 20, exclude=own, backend=each, metric=metric) for each in BACKENDS)
    assert_close(a[0], b[0], rtol=1e-4, atol=1e-4)
    gap = (b[0][:, 1:] - b[0][:, :-1]).abs().min(1)[0]
    distinct = gap > 1e-4  # distances further apart than what rounding can do
    assert distinct.sum() > 500
    assert torch.equal(a[1][distinct], b[1][distinct])


@pytest.mark.parametrize("backend", BACKENDS)
def test_blocks_of_queries_are_put_together(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 32)
    e = torch.randn(70, 8)
    found = search(e, e, 4, exclude=torch.arange(70), backend=backend)
    check(found, naive.neighbors(e.tolist(), e.tolist(), 4, "ip", list(range(70))))


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_gallery_has_nothing_left_out(backend: str) -> None:
    """In-Shop: the same picture may be on both sides, and all of the gallery can be asked for."""
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


def test_what_an_approximate_index_does_not_find_is_minus_one() -> None:
    """One list of an IVF searched, of two far apart: half of the items are not seen."""
    gallery = torch.cat([torch.randn(50, 4) - 50, torch.randn(50, 4) + 50])
    index = Index("ivf", "l2").build(gallery)
    assert index.store.native.nlist == 2
    index.store.native.nprobe = 1
    exclude = torch.tensor([0, 1, 2, -1, -1])  # a missing neighbour is not the one to leave out
    _, ids = index.search(gallery[:5], 98, exclude=exclude)
    assert (ids >= 0).sum(1).tolist() == [49, 49, 49, 50, 50]
    assert (ids < 50).all() and (ids[:, 50:] == -1).all()
    assert ids[3:, 0].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("index", "backend"), [("flat", "torch"), ("flat", "faiss"), ("hnsw", "auto"), ("ivf", "auto")]
)
def test_a_saved_index_finds_the_same(index: str, backend: str, tmp_path: Path) -> None:
    gallery, queries = clusters(300), clusters(20)
    built = Index(index, "cosine", backend).build(gallery)
    built.save(tmp_path / "gallery.index")
    loaded = Index.load(tmp_path / "gallery.index")
    assert (loaded.index, loaded.metric, len(loaded)) == (index, "cosine", 300)
    a, b = built.search(queries, 8), loaded.search(queries, 8)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    with pytest.raises(ValueError, match=r"queries of the gallery's width 16, got 5\."):
        loaded.search(torch.randn(3, 5), 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_saved_index_must_be_what_its_metadata_say(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index(backend=backend).build(torch.randn(8, 4)).save(path)
    facts = json.loads((tmp_path / "index.json").read_text())
    assert facts == {
        "backend": backend, "index": "flat", "metric": "ip", "width": 4, "count": 8,
    }  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps({**facts, "width": 5}))
    with pytest.raises(ValueError, match=r"holds 8 embeddings of width 4, but .* 8 of width 5\."):
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


def test_with_faiss_it_is_taken_and_torch_if_asked_for() -> None:
    assert Index().build(torch.randn(5, 3)).store.backend == "faiss"
    assert Index(backend="torch").build(torch.randn(5, 3)).store.backend == "torch"


def test_importing_the_package_loads_neither_faiss_nor_scikit_learn() -> None:
    code = (
        "import sys, mixplug.retrieval, mixplug.metrics;"
        "print([m for m in ('faiss', 'sklearn', 'numpy.testing') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "faiss" not in run.stdout and "sklearn" not in run.stdout


def test_faiss_gets_as_many_threads_as_torch() -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(before + 3)
    try:
        with module._threads(faiss):
            assert faiss.omp_get_max_threads() == torch.get_num_threads()
        assert faiss.omp_get_max_threads() == before + 3
    finally:
        faiss.omp_set_num_threads(before)


@pytest.mark.parametrize(
    ("code", "warned"),
    [
        ("raise SystemExit(0)", None),
        ("import os; os.abort()", r"fails its self-test on the GPU, so it is not used: it ended"),
        ("assert False, 'wrong ids'", r"fails its self-test on the GPU(.|\n)*wrong ids"),
    ],
    ids=["right", "abort", "wrong"],
)
def test_gpu_faiss_must_find_known_neighbours(
    code: str, warned: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU here: a faiss that claims one, and the test's process made to end in each way."""
    fake = SimpleNamespace(StandardGpuResources=object, get_num_gpus=lambda: 1)
    monkeypatch.setitem(sys.modules, "faiss", fake)
    monkeypatch.setattr(module, "_SELF_TEST", code)
    gpu_faiss_works.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert gpu_faiss_works() is (warned is None)
            chosen = module._choose("auto", "flat", torch.device("cuda"))
        assert chosen == ("faiss" if warned is None else "torch")
        assert len(caught) == (warned is not None)  # asked and warned once
        assert warned is None or re.search(warned, str(caught[0].message))
    finally:
        gpu_faiss_works.cache_clear()


def test_the_self_test_knows_right_from_wrong() -> None:
    """Its code, with the GPU's index replaced by the CPU's, and by one of another metric."""
    for make, passes in (("lambda r, d, i: i", True), ("lambda *_: WRONG", False)):
        code = f"import faiss\nfaiss.StandardGpuResources = object\nfaiss.index_cpu_to_gpu = {make}"
        code = code.replace("WRONG", "faiss.IndexFlat(32, faiss.METRIC_L1)")
        wrong = "found = found[::-1]\nknown" if not passes else "known"
        tested = module._SELF_TEST.replace("known", wrong, 1)
        run = subprocess.run([sys.executable, "-c", code + tested], capture_output=True)
        assert (run.returncode == 0) is passes


def test_faiss_for_cpus_is_never_taken_on_a_gpu() -> None:
    gpu_faiss_works.cache_clear()
    assert module._choose("auto", "flat", torch.device("cuda")) == "torch"
    assert module._choose("auto", "flat", torch.device("cpu")) == "faiss"


@pytest.mark.parametrize("block", [None, (64, 512)])
def test_memory_stays_below_the_estimate(block: tuple[int, int] | None) -> None:
    e = torch.randn(2000, 16)
    own = torch.arange(2000)

    def call() -> None:
        search(e, e, 50, exclude=own, backend="torch", metric="cosine", block=block)

    assert peak_bytes(call) < memory_estimate(2000, 2000, 16, 50)


def test_the_estimate_grows_with_what_it_counts() -> None:
    """60,000 x 60,000 distances are 14 GB; results with k = 1000 are 0.7 GB."""
    small = memory_estimate(60_000, 60_000, 512, 10)
    assert small < 1 << 30
    assert memory_estimate(60_000, 60_000, 512, 1000) - small >= 12 * 60_000 * 990
    assert memory_estimate(0, 1000, 512, 10) - memory_estimate(0, 0, 512, 10) == 4 * 512 * 1000


def test_too_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_free_bytes", lambda device: 1 << 20)
    with pytest.warns(UserWarning, match=r"takes about 0\.\d GiB .* and 0\.0 GiB are free: search"):
        search(torch.randn(3, 2), torch.randn(5, 2), 1)
    monkeypatch.setattr(module, "_free_bytes", lambda device: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(torch.randn(3, 2), torch.randn(5, 2), 1)


def test_free_memory_is_known_here() -> None:
    free = module._free_bytes(torch.device("cpu"))
    assert free is not None and 1 << 20 < free < 1 << 50


@pytest.mark.parametrize("backend", BACKENDS)
def test_clusters_are_those_of_the_data_and_of_the_seed(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "torch":
        monkeypatch.setitem(sys.modules, "faiss", None)
    truth = torch.arange(2).repeat(60)
    e = torch.eye(3)[truth] * 50 + torch.randn(120, 3)
    found = kmeans_clusters(e, 2, seed=1)
    assert found.dtype == torch.int64 and found.shape == (120,)
    assert naive.nmi(truth.tolist(), found.tolist()) == pytest.approx(1)
    noise = torch.randn(200, 5)
    assert torch.equal(kmeans_clusters(noise, 20, seed=3), kmeans_clusters(noise, 20, seed=3))
    assert not torch.equal(kmeans_clusters(noise, 20, seed=3), kmeans_clusters(noise, 20, seed=4))


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
            r"The index 'ivf' needs the backend 'faiss', got 'torch'\.",
        ),
        (lambda: search(E, E, 5), r"between 1 and 4, got 5: gallery smaller than K \(4 items\)\."),
        (
            lambda: search(E, E, 4, exclude=torch.arange(4)),
            r"got 4: gallery smaller than K \(4 items, one of them left out\)\.",
        ),
        (lambda: search(E, E, 0), r"between 1 and 4, got 0"),
        (lambda: search(E, E, 1, exclude=torch.arange(3)), r"got \(3,\) for 4 queries\."),
        (lambda: search(E, E, 1, exclude=torch.arange(4) + 1), r"exclude < 4, .* got 4\."),
        (lambda: search(E / 0, E, 1), r"search needs finite queries"),
        (lambda: search(E, E * float("nan"), 1), r"search needs finite gallery"),
        (
            lambda: search(E, E * torch.tensor([1, 1, 0, 1])[:, None], 1, metric="cosine"),
            r"cosine needs embeddings that are not 0, but row 2 is\.",
        ),
        (lambda: search(torch.ones(2, 3), E, 1), r"of the gallery's width 2, got 3\."),
        (lambda: Index().search(E, 1), r"has no gallery yet: call build or load\."),
        (lambda: kmeans_clusters(E, 5), r"k between 1 and the 4 embeddings, got 5\."),
        (lambda: kmeans_clusters(E / 0, 2), r"kmeans_clusters needs finite embeddings"),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Two processes: what each searches, from one seed. The first shard is smaller than k.
CASES: dict[str, dict[str, Any]] = {
    "ties": {"make": grid, "k": 9},
    "reals": {"make": lambda n: torch.randn(n, 32), "k": 9},
    "torch": {"make": grid, "k": 9, "backend": "torch", "metric": "l2"},
    "own queries": {"make": grid, "k": 9, "queries_sharded": True},
    "an empty shard": {"make": grid, "k": 9, "cut": 0, "queries_sharded": True},
    "cosine": {"make": lambda n: torch.randn(n, 8), "k": 3, "metric": "cosine"},
    "no exclusion": {"make": grid, "k": 9, "exclude": False},
    "offsets": {"make": grid, "k": 9, "swapped": True},
}


def case(name: str) -> tuple[Tensor, dict[str, Any]]:
    settings = dict(CASES[name])
    torch.manual_seed(11)
    return settings.pop("make")(100), settings


def share(rank: int, name: str) -> tuple[Tensor, Tensor]:
    """What a rank gets in a case."""
    e, settings = case(name)
    cut = settings.pop("cut", 6)
    own = torch.arange(100) if settings.pop("exclude", True) else None
    shard, offset = (e[:cut], 0) if rank == 0 else (e[cut:], cut)
    if settings.pop("swapped", False):  # the first rank has the last ids
        shard, offset = (e[40:], 40) if rank == 0 else (e[:40], 0)
        settings["offset"] = offset
    queries = e
    if settings.get("queries_sharded"):  # 70 and 30 of them
        part = slice(0, 70) if rank == 0 else slice(70, 100)
        queries, own = e[part], own[part] if own is not None else None
    return sharded_search(queries, shard, settings.pop("k"), exclude=own, **settings)


def refused(rank: int) -> list[str]:
    """The messages of what only one rank gets wrong."""
    e = torch.ones(5, 2)
    calls = [
        lambda: sharded_search(e, e / 0 if rank else e, 1),
        lambda: sharded_search(e, torch.ones(5, 3) if rank else e, 1),
        lambda: sharded_search(e[: 2 + rank], e, 1),
        lambda: sharded_search(e, e, 11),
        lambda: sharded_search(e, e, 1, offset=3 * rank),
        lambda: sharded_search(e, e, 1, exclude=torch.arange(4 + rank)),
    ]
    messages = []
    for call in calls:
        with pytest.raises(ValueError) as caught:
            call()
        messages.append(str(caught.value))
    return messages


def work(meeting: str, out: str, rank: int) -> None:
    """What one of two processes does; results go to OUT/RANK.pt."""
    torch.set_num_threads(1)
    module._BLOCK = 32  # so that there is more than one block to merge
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    results: dict[str, Any] = {name: share(rank, name) for name in CASES}
    results["refused"] = refused(rank)
    torch.save(results, Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes found."""
    out = tmp_path_factory.mktemp("two_ranks")
    command = [sys.executable, __file__, str(out / "meeting"), str(out)]
    here = Path(__file__).parents  # as pytest has it: the root, and the tests
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here[2]), str(here[1])])}
    options = {"env": env, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(rank)], **options) for rank in range(2)]
    try:
        said = [process.communicate(timeout=SECONDS)[1] for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        pytest.fail(f"Two processes hang: not done after {SECONDS} s.")
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_find_what_one_finds(name: str, ranks: list) -> None:
    e, settings = case(name)
    own = torch.arange(100) if settings.get("exclude", True) else None
    known = {key: settings[key] for key in ("backend", "metric") if key in settings}
    values, ids = search(e, e, settings["k"], exclude=own, **known)
    zero, one = (rank[name] for rank in ranks)
    if settings.get("queries_sharded"):
        assert [len(zero[1]), len(one[1])] == [70, 30]
        zero = one = tuple(torch.cat(parts) for parts in zip(zero, one, strict=True))
    for found in (zero, one):
        assert torch.equal(found[1], ids)
        assert_close(found[0], values, rtol=1e-6, atol=1e-6)


def test_what_one_rank_refuses_is_raised_on_both(ranks: list) -> None:
    zero, one = (rank["refused"] for rank in ranks)
    assert zero == one
    parts = (
        "sharded_search on rank 1: search needs finite gallery",
        "one width on all ranks, got [2, 3].",
        "the same queries on all ranks, got [2, 3] of them",
        "between 1 and 10, got 11: gallery smaller than K (10 items).",
        "ids that do not overlap, got the spans [(0, 5), (3, 8)].",
        "sharded_search on rank 0: search needs exclude (Q,)",
    )
    for message, part in zip(zero, parts, strict=True):
        assert part in message


if __name__ == "__main__":  # one of two processes
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
