"""Recall@K relative to bare faiss, its memory, and scores relative to pytorch-metric-learning."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.bench.measure import NO_BOUND, Row, in_turns, ratio
from mixplug.metrics import RecallAtK
from mixplug.optional import optional

Tick = Callable[[], None]
COUNT, WIDTH, CLASSES = 60_000, 512, 11_000  # about the size of SOP's test set
KS = (1, 10, 100, 1000)
SMALL = 6_000  # pytorch-metric-learning stores SMALL x SMALL neighbors, labels and masks
# Scores that both libraries compute: the other library's name to our name.
_SHARED = {
    "precision_at_1": "precision_at_1",
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "map_at_r",
}


def retrieval_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """Recall@{1, 10, 100, 1000} of 60,000 embeddings, and the scores of both libraries.

    Everything runs on the CPU. The search takes minutes, so at most two rounds are measured. They
    run in a process of their own, so that its memory can be measured.
    """
    yield from search_rows(min(rounds, 2), COUNT)
    tick()
    yield from score_rows(rounds, SMALL, tick)


def search_rows(rounds: int, count: int) -> Iterator[Row]:
    """Time and memory of Recall@K over ``count`` embeddings."""
    words = f"measure_search({count}, {rounds}, {torch.get_num_threads()})"
    code = f"import json; from mixplug.bench.retrieval import *; print(json.dumps({words}))"
    run = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(run.stdout)
    times = ratio(found["ours"], found["bare"])
    note = f"faiss alone, {torch.get_num_threads()} threads as well: {min(found['bare']):.0f} s"
    name = f"Recall@{{{','.join(map(str, KS))}}} of {count:,} x {WIDTH}"
    yield Row(name, times, 1.15, False, "x", note)
    note = "growth of the process' largest resident set, index and copies included"
    yield Row("  memory beyond the embeddings", found["bytes"] / 1e9, 1.0, False, "GB", note)


def measure_search(count: int, rounds: int, threads: int) -> dict[str, list[float] | int]:
    """Seconds of mixplug and of faiss alone, interleaved, and the memory growth of mixplug.

    Ours includes everything from collected embeddings to four numbers. The other side is one search
    of an existing index for the same 1001 neighbors, the query included. The memory is in bytes.
    """
    import resource  # does not exist on Windows

    torch.set_num_threads(threads)
    faiss = optional("faiss", "metric", "The benchmark of search")
    faiss.omp_set_num_threads(threads)
    embeddings, labels = clustered(count)
    _recall(embeddings[:2000], labels[:2000])  # warm-up: loads and allocates once
    before = _peak(resource)
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    grown = 0
    for turn in range(rounds):
        start = time.perf_counter()
        _recall(embeddings, labels)
        seconds["ours"].append(time.perf_counter() - start)
        if not turn:
            grown = _peak(resource) - before
        index = faiss.IndexFlatIP(WIDTH)
        index.add(embeddings.numpy())
        start = time.perf_counter()
        index.search(embeddings.numpy(), max(KS) + 1)
        seconds["bare"].append(time.perf_counter() - start)
    return {**seconds, "bytes": grown}


def score_rows(rounds: int, count: int, tick: Tick) -> Iterator[Row]:
    """Precision@1, R-precision and MAP@R by AccuracyCalculator, relative to ours.

    If AccuracyCalculator is given the number of neighbors, which ours finds itself, it spends its
    time in the same faiss search as ours, and with NMI in the same clustering. These rows are only
    reported.
    """
    where = "pytorch_metric_learning.utils.accuracy_calculator"
    module = optional(where, "pml", "The benchmark of scores")
    faiss = optional("faiss", "metric", "The benchmark of scores")
    faiss.omp_set_num_threads(torch.get_num_threads())
    embeddings, labels = clustered(count, classes=CLASSES * count // COUNT)

    def theirs(k: str | None, *more: str) -> dict[str, float]:
        cpu = torch.device("cpu")
        calculator = module.AccuracyCalculator(include=(*_SHARED, *more), k=k, device=cpu)
        return calculator.get_accuracy(embeddings, labels)

    calls = {
        "ours": lambda: _scores(embeddings, labels),
        "ours, nmi": lambda: _scores(embeddings, labels, "nmi"),
        "default": lambda: theirs(None),
        "least": lambda: theirs("max_bin_count"),
        "nmi": lambda: theirs("max_bin_count", "NMI"),
    }
    seconds = in_turns(calls, rounds, tick)
    name = f"AccuracyCalculator of PML / ours, {count:,} x {WIDTH}"
    note = f"ours {1e3 * min(seconds['ours']):.0f} ms"
    yield Row(name, ratio(seconds["default"], seconds["ours"]), 2.0, True, "x", note)
    least = ratio(seconds["least"], seconds["ours"])
    yield Row("  with k='max_bin_count'", least, NO_BOUND, False, "x")
    nmi = ratio(seconds["nmi"], seconds["ours, nmi"])
    yield Row("  and with NMI", nmi, NO_BOUND, False, "x")
    mine, other = calls["ours"](), calls["default"]()
    pairs = zip(mine.values(), _SHARED, strict=True)
    worst = max(abs(a / 100 - other[theirs_name]) for a, theirs_name in pairs)
    yield Row("  largest difference of the three scores", worst, 1e-3, False)


GROUPS = {"retrieval": retrieval_rows}


def clustered(count: int, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Embeddings of length 1 around one center per class, and their classes; fixed seed."""
    source = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (count,), generator=source)
    labels[: 2 * classes] = torch.arange(classes).repeat(2)[:count]  # at least two per class
    centers = torch.randn(classes, WIDTH, generator=source)
    embeddings = torch.randn(count, WIDTH, generator=source)
    for part, own in zip(embeddings.split(1000), labels.split(1000), strict=True):
        part.mul_(2.5).add_(centers[own])  # in place and in parts, to add nothing to the peak
        part.copy_(F.normalize(part))
    return embeddings, labels


def _recall(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    metrics = RecallAtK(KS, ("recall",), backend="faiss", device="cpu")
    metrics.update(embeddings, labels)
    return metrics.compute()


def _scores(embeddings: Tensor, labels: Tensor, *more: str) -> dict[str, float]:
    metrics = RecallAtK(scores=(*_SHARED.values(), *more), device="cpu")
    metrics.update(embeddings, labels)
    return metrics.compute()


def _peak(resource: object) -> int:
    """Peak resident memory of this process so far, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # type: ignore[attr-defined]
    return used if sys.platform == "darwin" else 1024 * used
