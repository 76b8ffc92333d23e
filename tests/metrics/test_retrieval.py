"""The accumulator against loops, and against pytorch-metric-learning where both have a score."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from reference import neighbors as naive
from torch import Tensor

from mixplug.metrics import RecallAtK, RetrievalMetrics
from mixplug.metrics import retrieval as module
from mixplug.metrics.scores import NAMES
from mixplug.retrieval import Index, kmeans_clusters
from mixplug.retrieval.search import METRICS

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def data(count: int = 120, classes: int = 12, width: int = 6) -> tuple[Tensor, Tensor]:
    """Classes that overlap, each with at least two examples, of any length."""
    labels = torch.cat([torch.arange(classes).repeat(2), torch.randint(classes, (count,))])
    centers = torch.randn(classes, width)
    embeddings = (centers[labels] + torch.randn(len(labels), width)) * 3
    return embeddings, labels[: len(embeddings)]


def scored(embeddings: Tensor, labels: Tensor, batch: int = 50, **settings: object) -> dict:
    gallery, train, mixed = (settings.pop(key, None) for key in ("gallery", "train", "mixed"))
    metrics = RecallAtK(**{"scores": "all", **settings})
    for e, y in zip(embeddings.split(batch), labels.split(batch), strict=True):
        metrics.update(e, y)
    return metrics.compute(gallery=gallery, train=train, mixed=mixed)


def looped(
    queries: Tensor, labels: Tensor, items: Tensor, classes: Tensor, own: list[int] | None, ks
) -> dict[str, float]:
    """What the definitions of the thesis and of Musgrave give in percent, all neighbors known."""
    wanted, known = labels.tolist(), classes.tolist()
    k = len(items) - (own is not None)
    _, ids = naive.neighbors(queries.tolist(), items.tolist(), k, "l2", own)
    rows = [[known[i] for i in row] for row in ids]
    relevant = [known.count(y) - (own is not None) for y in wanted]
    expected = {f"recall@{k}": naive.recall_at_k(rows, wanted, k) for k in ks}
    expected["precision@1"] = expected["recall@1"]
    expected["r_precision"] = naive.r_precision(rows, wanted, relevant)
    expected["map@r"] = naive.map_at_r(rows, wanted, relevant)
    expected = {name: 100 * value for name, value in expected.items()}
    expected["alignment"] = naive.alignment(queries.tolist(), wanted, 2)
    expected["uniformity"] = naive.uniformity(queries.tolist(), 2)
    return expected


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [4096, 37])
def test_scores_equal_the_loops(
    backend: str, dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'cosine' by default: the loops get embeddings of length 1. 37 queries at a time too."""
    monkeypatch.setattr(module, "_BLOCK", block)
    e, y = data()
    y[-3:] = torch.tensor([100, 101, 102])  # without any relevant item
    found = scored(e.to(dtype), y, backend=backend, ks=(1, 2, 4, 8))
    unit = F.normalize(e.double())
    expected = looped(unit, y, unit, y, list(range(len(y))), (1, 2, 4, 8))
    expected["nmi"] = 100 * naive.nmi(
        y.tolist(), kmeans_clusters(F.normalize(e), len(y.unique()), seed=0).tolist()
    )
    assert found == pytest.approx(expected, rel=1e-4)
    assert 10 < found["recall@1"] < found["recall@8"] < 100
    assert found["map@r"] < found["r_precision"]


def test_a_block_without_any_relevant_item_weighs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    e, y = data()
    y[:20] = torch.arange(1000, 1020)
    whole = scored(e, y, scores=("recall", "r_precision", "map_at_r"))
    monkeypatch.setattr(module, "_BLOCK", 10)
    parts = scored(e, y, scores=("recall", "r_precision", "map_at_r"))
    assert parts == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_a_gallery_is_searched_whole(backend: str) -> None:
    """In-Shop: ids of queries and items have nothing to do with each other."""
    (q, y), (g, c) = data(40), data(90)
    q[:5], y[:5] = g[:5], c[:5]  # the same pictures on both sides count
    y[-1] = 77  # of a class that the gallery does not have
    found = scored(q, y, backend=backend, gallery=(g, c), ks=(1, 3))
    unit, items = F.normalize(q.double()), F.normalize(g.double())
    expected = looped(unit, y, items, c, None, (1, 3))
    nmi = found.pop("nmi")
    assert 0 <= nmi <= 100
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("backend", ["faiss", "torch", "auto"])
@pytest.mark.parametrize("device", DEVICES)
def test_every_device_finds_the_same(device: str, backend: str) -> None:
    e, y = data()
    unit = F.normalize(e.double())
    expected = looped(unit, y, unit, y, list(range(len(y))), (1, 4))
    found = scored(e, y, device=device, backend=backend, ks=(1, 4))
    assert found == pytest.approx({**expected, "nmi": found["nmi"]}, rel=1e-4)
    assert scored(e, y, backend=backend, ks=(1, 4)) == pytest.approx(found, rel=1e-6)
    gallery = data(90)
    found = scored(e, y, device=device, backend=backend, gallery=gallery)
    assert scored(e, y, backend=backend, gallery=gallery) == pytest.approx(found, rel=1e-6)


def test_gallery_and_queries_are_moved_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """To 'meta', which is there without a GPU, and on which no search finds anything."""
    moved: list[tuple[str, int]] = []

    class Seen(Index):
        def build(self, gallery: Tensor) -> Index:
            moved.append((gallery.device.type, len(gallery)))
            return self

        def search(self, queries: Tensor, k: int, exclude: Tensor) -> tuple[Tensor, Tensor]:
            moved.append((queries.device.type, len(queries)))
            return torch.zeros(len(queries), k), torch.zeros(len(queries), k).long()

    monkeypatch.setattr(module, "Index", Seen)
    monkeypatch.setattr(module, "_BLOCK", 100)
    e, y = data()
    metrics = RecallAtK(scores=("recall",))
    metrics.device = "meta"
    metrics.update(e, y)
    metrics.compute()
    assert moved == [("meta", 144), ("meta", 100), ("meta", 44)]  # the gallery once
    assert metrics._kept[0][0].device.type == "cpu"


def test_devices_are_those_that_torch_has() -> None:
    for device, gpus in (
        (None, 0),
        ("cpu", 0),
        ("cpu", 2),
        ("cuda", 1),
        ("cuda:0", 1),
        ("cuda:1", 2),
    ):
        module._check_device(device, gpus)
    for device, gpus in (
        ("cuda", 0),
        ("cuda:0", 0),
        ("cuda:2", 2),
        ("gpu", 2),
        ("meta", 2),
        ("", 1),
    ):
        with pytest.raises(ValueError, match=rf"\('cpu',.*\), got '{device}'\."):
            module._check_device(device, gpus)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_scores_equal_those_of_pytorch_metric_learning(metric: str) -> None:
    calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    e, y = data(400, 30)
    mine = scored(e, y, metric=metric, scores=("precision_at_1", "r_precision", "map_at_r"))
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    theirs = calculator.AccuracyCalculator(include=names, device=torch.device("cpu"))
    other = theirs.get_accuracy(F.normalize(e) if metric == "cosine" else e, y)
    assert list(mine.values()) == pytest.approx([100 * other[name] for name in names], abs=1e-7)
    (q, z), gallery = data(50, 30), (e, y)
    mine = scored(q, z, metric="l2", gallery=gallery, scores=("r_precision", "map_at_r"))
    other = theirs.get_accuracy(q, z, e, y)
    assert list(mine.values()) == pytest.approx([100 * other[name] for name in names[1:]], abs=1e-7)


def test_metrics_differ_where_lengths_do() -> None:
    e, y = data()
    e = e * torch.rand(len(e), 1) * 5
    values = {m: scored(e, y, metric=m, scores=("map_at_r",))["map@r"] for m in METRICS}
    assert len(set(values.values())) == 3


def test_utilization_of_clean_and_mixed_examples() -> None:
    (e, y), train, mixed = data(), torch.randn(70, 6), torch.randn(200, 6)
    found = scored(e, y, scores=("recall",), train=train, mixed=mixed)
    q, x, m = (F.normalize(t).tolist() for t in (e, train, mixed))
    assert found["utilization"] == pytest.approx(naive.utilization(q, x), rel=1e-5)
    assert found["utilization_mixed"] == pytest.approx(naive.utilization(q, x + m), rel=1e-5)
    assert found["utilization_mixed"] < found["utilization"]
    plain = scored(e, y, scores=("recall",), train=train, metric="l2")
    assert plain["utilization"] == pytest.approx(
        naive.utilization(e.tolist(), train.tolist()), rel=1e-5
    )
    assert "utilization" not in scored(e, y, scores=("recall",))


def test_only_what_is_asked_for_is_there() -> None:
    e, y = data()
    assert list(scored(e, y, scores=("recall",), ks=(3,))) == ["recall@3"]
    assert list(scored(e, y, scores=("uniformity", "map_at_r"))) == ["map@r", "uniformity"]
    names = "recall@1 recall@2 recall@4 recall@8 map@r r_precision precision@1 nmi alignment "
    assert set(scored(e, y)) == {*names.split(), "uniformity"}


def test_neighbors_are_searched_once_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    search = module.Index.search
    monkeypatch.setattr(
        module.Index,
        "search",
        lambda self, q, k, exclude=None: (asked.append(k), search(self, q, k, exclude))[1],
    )
    e, y = data()
    largest = int(y.bincount().max()) - 1
    assert largest > 8
    for metrics, k in ((NAMES, largest), (("recall",), 8), (("precision_at_1",), 1)):
        scored(e, y, scores=metrics)
        assert asked == [k]
        asked.clear()


def test_one_seed_gives_one_result_however_it_is_split_and_without_faiss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    e, y = data()
    assert scored(e, y) == scored(e, y, batch=7)
    nmi = {scored(e, y, scores=("nmi",), seed=seed)["nmi"] for seed in range(4)}
    assert len(nmi) > 1
    with_faiss = scored(e, y)
    monkeypatch.setitem(sys.modules, "faiss", None)
    without = scored(e, y)
    assert 0 < without.pop("nmi") < 100 and with_faiss.pop("nmi")
    assert without == pytest.approx(with_faiss, rel=1e-12)
    assert scored(e, y, scores=("nmi",)) == scored(e, y, scores=("nmi",))


def test_compute_can_be_called_between_updates_and_reset_forgets() -> None:
    e, y = data()
    before = e.clone()
    metrics = RecallAtK(scores=("recall", "uniformity"))
    metrics.update(e[:80], y[:80])
    first = metrics.compute()
    assert first == metrics.compute()
    metrics.update(e[80:].requires_grad_(), y[80:])
    assert metrics.compute() == scored(e, y, scores=("recall", "uniformity")) != first
    assert torch.equal(e, before)
    metrics.reset()
    metrics.update(e[:80], y[:80])
    assert metrics.compute() == first


E4, Y4 = torch.ones(4, 2), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: RecallAtK(scores=("recall", "mrr")),
            r"RecallAtK needs scores of \('recall', .*, or 'all', got \('recall', 'mrr'\)\.",
        ),
        (lambda: RecallAtK(scores="mrr"), r"or 'all', got \('mrr',\)\."),
        (lambda: RecallAtK(scores=()), r"needs scores of"),
        (lambda: RecallAtK(ks=(0, 1)), r"needs ks >= 1, got \(0, 1\)\."),
        (lambda: RecallAtK(backend="annoy"), r"backend in .*, got 'annoy'\."),
        (lambda: RecallAtK(index="pq"), r"index in .*, got 'pq'\."),
        (lambda: RecallAtK(metric="l1"), r"metric in .*, got 'l1'\."),
        (
            lambda: RecallAtK(device="gpu"),
            r"needs device None or one that torch has here, \('cpu',.*\), got 'gpu'\.",
        ),
        (lambda: RecallAtK().compute(), r"nothing to score: call update first\."),
        (lambda: scored(E4, Y4[:3], 4), r"update needs embeddings .* got \(4, 2\) and \(3,\)\."),
        (lambda: scored(E4, Y4 - 1), r"integer labels >= 0, got torch.int64, at least -1\."),
        (lambda: scored(E4, Y4.float()), r"integer labels >= 0, got torch.float32"),
        (lambda: scored(E4, Y4), r"between 1 and 3, got 8\. The gallery has 4 items"),
        (lambda: scored(E4 / 0, Y4, ks=(1,)), r"RecallAtK needs finite embeddings, got NaN"),
        (
            lambda: scored(E4, Y4, ks=(1,), gallery=(E4 / 0, Y4)),
            r"RecallAtK needs finite embeddings of the gallery",
        ),
        (lambda: scored(E4 * 0, Y4), r"'cosine' needs nonzero embeddings, but row 0 is zero\."),
        (
            lambda: scored(E4, Y4, gallery=(torch.ones(5, 3), torch.ones(5).long())),
            r"compute needs embeddings of the width 2 that came before, got 3\.",
        ),
        (lambda: scored(E4, Y4, mixed=E4), r"utilization_mixed needs train too"),
        (
            lambda: scored(E4, torch.arange(4), scores=("map_at_r", "r_precision")),
            r"No query has a relevant item in the gallery, which R needs\.",
        ),
        (
            lambda: scored(E4, torch.arange(4), scores=("alignment",)),
            r"alignment needs at least two examples of the same class",
        ),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_batches_of_another_width_are_refused() -> None:
    metrics = RecallAtK()
    metrics.update(E4, Y4)
    with pytest.raises(ValueError, match=r"of the width 2 that came before, got 3\."):
        metrics.update(torch.ones(4, 3), Y4)


def test_a_score_may_be_named_alone() -> None:
    e, y = data()
    assert scored(e, y, scores="nmi") == scored(e, y, scores=("nmi",))
    assert list(scored(e, y, scores="recall", ks=(2,))) == ["recall@2"]
    assert RecallAtK().scores == ("recall",) and RecallAtK(scores="all").scores == NAMES


def test_the_old_name_warns_and_gives_fractions_of_all_scores() -> None:
    e, y = data()
    with pytest.warns(DeprecationWarning, match="RetrievalMetrics is now RecallAtK, .* percent"):
        old = RetrievalMetrics(ks=(1, 3))
    old.update(e, y)
    found, percent = old.compute(), scored(e, y, ks=(1, 3))
    assert found.keys() == percent.keys() and 0 < found["recall@3"] < 1
    for name, value in found.items():
        same = name in ("alignment", "uniformity")
        assert percent[name] == (value if same else 100 * value)


def test_an_undefined_score_leaves_the_others_standing() -> None:
    """One query of each class and a gallery, as in product search."""
    y = torch.arange(20).repeat_interleave(3)
    e, first = torch.randn(60, 16), torch.arange(60) % 3 == 0
    gallery = (e[~first], y[~first])
    with pytest.warns(UserWarning, match="'alignment' is NaN: alignment needs at least two"):
        found = scored(e[first], y[first], gallery=gallery)
    assert set(found) == set(scored(e, y))
    assert {name for name, value in found.items() if value != value} == {"alignment"}
    others = tuple(name for name in NAMES if name != "alignment")
    expected = scored(e[first], y[first], gallery=gallery, scores=others)
    assert {name: found[name] for name in expected} == expected


def test_without_relevant_items_recall_stands() -> None:
    names = ("recall", "map_at_r", "r_precision")
    with pytest.warns(UserWarning, match="No query has a relevant item"):
        found = scored(torch.randn(6, 3), torch.arange(6), scores=names, ks=(1,))
    assert found["recall@1"] == 0
    assert found["map@r"] != found["map@r"] and found["r_precision"] != found["r_precision"]


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("scores", [("recall",), ("nmi",), ("alignment",)])
def test_nan_says_so(metric: str, scores: tuple[str, ...]) -> None:
    e, y = torch.randn(10, 8), torch.arange(5).repeat(2)
    e[3] = float("nan")
    with pytest.raises(ValueError, match="RecallAtK needs finite embeddings, got NaN"):
        scored(e, y, metric=metric, scores=scores, ks=(1,))


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_huge_values_have_the_scores_of_small_ones(metric: str) -> None:
    """Of a network that diverges: their squares are infinite in float32."""
    y = torch.arange(20).repeat_interleave(3)
    e = torch.randn(60, 16)
    names = ("recall", "map_at_r", "nmi")
    # A power of two, so that all digits stay
    assert scored(e * 2.0**66, y, metric=metric, scores=names) == scored(
        e, y, metric=metric, scores=names
    )


@pytest.mark.parametrize("index", ["flat", "ivf", "hnsw"])
def test_a_search_of_huge_values_is_refused(index: str) -> None:
    with pytest.raises(ValueError, match=r"needs gallery up to 1e\+15, got .*diverged"):
        Index(index, "l2").build(1e20 * torch.randn(100, 8))
