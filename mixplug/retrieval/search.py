"""Nearest neighbours by faiss, or exactly by torch in blocks; the query is left out by its id.

Letters: Q queries, N gallery items, D width, k neighbours. Distances are similarities, largest
first, for 'ip' and 'cosine', and squared Euclidean distances, smallest first, for 'l2'.

Order of ties: equal distances come by ascending id. One neighbour more than asked for is searched
to see whether k cuts through a tie; such queries are searched again by torch, which looks at all
items. What is equal is what the backend computes in float32: between backends, and between faiss'
own ways for few and for many queries, distances differ in their last digits. The approximate
indexes order what they find in the same way, but do not see what they miss.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mixplug.functional.neighbors import check_embeddings, nearest, settle, untie
from mixplug.optional import optional

BACKENDS = ("auto", "faiss", "torch")
INDEXES = ("flat", "hnsw", "ivf")
_BLOCK = 4096  # queries at a time, which faiss takes at a time itself
_SCRATCH = 1 << 29  # bytes that either backend has in flight, at most
_GPU_MOST = 2048  # neighbours that faiss finds on a GPU
_SELF_TEST = """
import faiss, numpy
angle = numpy.arange(512) * (2 * numpy.pi / 512)
circle = numpy.stack([numpy.cos(angle), numpy.sin(angle)] * 16, 1).astype("float32")
index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss.IndexFlatL2(32))
index.add(circle)
found = index.search(circle, 3)[1]
known = (numpy.arange(512)[:, None] + [-1, 0, 1]) % 512
assert (numpy.sort(found, 1) == numpy.sort(known, 1)).all(), found
"""


def unit(t: Tensor) -> Tensor:
    """Rows of length 1.

    Raises:
        ValueError: a row of zeros, which has no direction.
    """
    norm = torch.linalg.vector_norm(t, dim=1, keepdim=True)
    if not (norm > 0).all():
        row = int((norm[:, 0] == 0).nonzero()[0, 0])
        raise ValueError(f"cosine needs embeddings that are not 0, but row {row} is.")
    return t / norm


# What is done to embeddings, and how they are compared then.
METRICS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "ip": (lambda t: t, "ip"),
    "l2": (lambda t: t, "l2"),
    "cosine": (unit, "ip"),
}


def search(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    exclude: Tensor | None = None,
    backend: str = "auto",
    index: str = "flat",
    metric: str = "ip",
    block: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """The k nearest gallery items of every query.

    Args:
        queries: (Q, D), CPU or GPU; compared in float32.
        gallery: (N, D).
        k: neighbours per query.
        exclude: (Q,) int64, the id of the item to leave out per query, -1 for none; arange(Q) where
            the queries are the gallery.
        backend: 'faiss', 'torch', or 'auto': faiss if it is installed, on a GPU only if it passes
            its self-test there, else torch.
        index: 'flat' is exact; 'hnsw' and 'ivf' are approximate, of faiss.
        metric: 'ip', 'l2' or 'cosine'.
        block: of torch's search, see :func:`mixplug.functional.neighbors.nearest`.

    Returns:
        Distances (Q, k) float32, and ids (Q, k) int64, -1 where an approximate index found less;
        on the device of the queries.

    Raises:
        ValueError: an unknown key, shapes that do not fit, NaN, zeros with 'cosine', or a gallery
            smaller than K.
        ImportError: faiss is asked for and not installed.
    """
    built = Index(index, metric, backend).build(gallery)
    return built.search(queries, k, exclude=exclude, block=block)


class Index:
    """A gallery that can be searched, saved and loaded.

    Args:
        index: see :func:`search`, like the other two.
        metric: 'ip', 'l2' or 'cosine'.
        backend: 'auto', 'faiss' or 'torch'.
    """

    def __init__(self, index: str = "flat", metric: str = "ip", backend: str = "auto") -> None:
        for name, value, known in (
            ("index", index, INDEXES),
            ("metric", metric, tuple(METRICS)),
            ("backend", backend, BACKENDS),
        ):
            if value not in known:
                raise ValueError(f"search needs {name} in {known}, got {value!r}.")
        if backend == "torch" and index != "flat":
            raise ValueError(f"The index {index!r} needs the backend 'faiss', got 'torch'.")
        self.index, self.metric, self.backend = index, metric, backend
        self._store: _Torch | _Faiss | None = None

    def build(self, gallery: Tensor) -> Index:
        """Take (N, D) embeddings; torch keeps the tensor itself, faiss a copy."""
        check_embeddings("search", "gallery", gallery)
        prepare, kind = METRICS[self.metric]
        store = _STORES[_choose(self.backend, self.index, gallery.device)]
        self._store = store(prepare(gallery.detach().float()), kind, self.index)
        return self

    @property
    def store(self) -> _Torch | _Faiss:
        """What holds the gallery."""
        if self._store is None:
            raise ValueError("This Index has no gallery yet: call build or load.")
        return self._store

    def __len__(self) -> int:
        return self.store.count

    def search(
        self,
        queries: Tensor,
        k: int,
        exclude: Tensor | None = None,
        block: tuple[int, int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Distances and ids, as :func:`search` has them."""
        queries = self.prepared(queries)
        extra = _check_exclude(exclude, len(queries), len(self))
        _check_k(k, len(self), extra)
        _warn_of_memory(len(queries), len(self), queries.shape[1], k, queries.device)
        values = queries.new_empty(len(queries), k)
        ids = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
        for start in range(0, len(queries), _BLOCK):
            rows = slice(start, start + _BLOCK)
            found = self.store.find(queries[rows], k + extra, block)
            own = exclude[rows] if extra and exclude is not None else None
            values[rows], ids[rows] = _without(*found, own)
        return values, ids

    def prepared(self, queries: Tensor) -> Tensor:
        """Queries as the gallery was prepared, in float32."""
        check_embeddings("search", "queries", queries)
        if queries.shape[1] != self.store.width:
            raise ValueError(
                f"search needs queries of the gallery's width {self.store.width}, got "
                f"{queries.shape[1]}."
            )
        return METRICS[self.metric][0](queries.detach().float())

    def save(self, path: str | Path) -> None:
        """Write the gallery to PATH, and what it is to PATH.json."""
        self.store.write(path)
        facts: dict[str, str | int] = {
            "backend": self.store.backend,
            "index": self.index,
            "metric": self.metric,
        }
        facts |= {"width": self.store.width, "count": self.store.count}
        Path(f"{path}.json").write_text(json.dumps(facts, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Index:
        """What :meth:`save` wrote.

        Raises:
            ValueError: PATH and PATH.json do not belong together.
            FileNotFoundError: one of them is not there.
            ImportError: faiss wrote it and is not installed.
        """
        facts = json.loads(Path(f"{path}.json").read_text())
        loaded = cls(facts["index"], facts["metric"], facts["backend"])
        store = _STORES[facts["backend"]].read(path, METRICS[loaded.metric][1], loaded.index)
        if (store.width, store.count) != (facts["width"], facts["count"]):
            raise ValueError(
                f"{path} holds {store.count} embeddings of width {store.width}, but {path}.json "
                f"says {facts['count']} of width {facts['width']}."
            )
        loaded._store = store
        return loaded


def sharded_search(
    queries: Tensor,
    gallery_shard: Tensor,
    k: int,
    *,
    offset: int | None = None,
    exclude: Tensor | None = None,
    queries_sharded: bool = False,
    backend: str = "auto",
    index: str = "flat",
    metric: str = "ip",
    block: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`search` over a gallery whose parts lie on the ranks of torch.distributed.

    Every rank searches its shard for all queries, 4096 at a time, and the best k of all shards are
    merged: with index 'flat' the result is that of one process with the whole gallery, ties
    included; the others build an index per shard, whose approximation is another.

    Args:
        queries: (Q, D), the same on all ranks; or, with ``queries_sharded``, each rank's own.
        gallery_shard: (n, D); n may differ between ranks and be 0.
        k: neighbours per query.
        offset: id of the shard's first item; None numbers the shards in the order of ranks.
        exclude: (Q,) ids over the whole gallery, -1 for none.
        queries_sharded: whether queries and results are each rank's own.
        backend: this and the others as in :func:`search`.
        index: 'flat', 'hnsw' or 'ivf'.
        metric: 'ip', 'l2' or 'cosine'.
        block: of torch's search.

    Raises:
        ValueError: what a rank refuses is raised on all of them, so that none waits for ever.
    """
    shard, extra, problem = Index(index, metric, backend), 0, None
    try:
        if len(gallery_shard):
            shard.build(gallery_shard)
        if len(queries):
            check_embeddings("search", "queries", queries)
        queries = METRICS[metric][0](queries.detach().float())
        extra = _check_exclude(exclude, len(queries), None)
    except (ValueError, ImportError) as error:
        problem = str(error)
    facts: list[Any] = [None] * dist.get_world_size()
    widths = {queries.shape[-1], gallery_shard.shape[-1]}
    mine = (problem, len(queries), len(gallery_shard), widths, offset, extra)
    dist.all_gather_object(facts, mine)
    offsets, extra = _agree(facts, k, queries_sharded)
    merge = functools.partial(_merged, shard, offsets[dist.get_rank()], k + extra, block)
    found = []
    for source in range(len(facts)) if queries_sharded else [dist.get_rank()]:
        kept = source == dist.get_rank()
        for start in range(0, facts[source][1], _BLOCK):
            part = queries[start : start + _BLOCK]
            if queries_sharded:
                rows = min(_BLOCK, facts[source][1] - start)
                part = part.contiguous() if kept else queries.new_empty(rows, queries.shape[1])
                dist.broadcast(part, source)
            values, ids = merge(part)
            if kept:
                own = exclude[start : start + _BLOCK] if exclude is not None else None
                own = torch.full((len(ids),), -1, device=ids.device) if own is None else own
                found.append(_without(values, ids, own if extra else None))
    if not found:
        return queries.new_empty(0, k), torch.empty(0, k, dtype=torch.long, device=queries.device)
    return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])


def memory_estimate(queries: int, gallery: int, width: int, k: int) -> int:
    """Bytes that a search takes beyond the embeddings: index, results, and what is in flight.

    The graph of 'hnsw' comes on top, some 300 bytes per item.

    Args:
        queries: Q.
        gallery: N.
        width: D.
        k: neighbours per query.
    """
    return 4 * (gallery + queries) * width + 12 * queries * k + _SCRATCH + 48 * _BLOCK * k


def kmeans_clusters(embeddings: Tensor, k: int, seed: int = 0) -> Tensor:
    """Clusters (B,) int64 of k-means: 20 iterations of faiss if it is installed, else scikit-learn.

    The two draw their first centres differently, so their clusters differ.

    Args:
        embeddings: (B, D).
        k: clusters, at most B.
        seed: of the first centres.

    Raises:
        ValueError: NaN, or k is not between 1 and B.
        ImportError: neither is installed.
    """
    check_embeddings("kmeans_clusters", "embeddings", embeddings)
    if not 1 <= k <= len(embeddings):
        raise ValueError(
            f"kmeans_clusters needs k between 1 and the {len(embeddings)} embeddings, got {k}."
        )
    points = _array(embeddings.detach().float())
    if not _has_faiss():
        cluster = optional("sklearn.cluster", "metric", "k-means")
        fitted = cluster.KMeans(k, n_init=1, max_iter=20, random_state=seed).fit(points)
        return torch.from_numpy(fitted.labels_).long().to(embeddings.device)
    faiss = _faiss()
    with _threads(faiss):
        means = faiss.Kmeans(points.shape[1], k, niter=20, seed=seed, min_points_per_centroid=1)
        means.train(points)
        ids = means.index.search(points, 1)[1]
    return torch.from_numpy(ids[:, 0]).to(embeddings.device)


@functools.cache
def gpu_faiss_works() -> bool:
    """Whether faiss finds known neighbours on a GPU; asked once per process.

    It is asked in a process of its own, since faiss aborts where its wheel has no kernels for the
    GPU at hand.
    """
    if not _has_faiss() or not hasattr(_faiss(), "StandardGpuResources"):
        return False
    if not _faiss().get_num_gpus():
        return False
    command = [sys.executable, "-c", _SELF_TEST]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        said = run.stderr.strip()[-300:] or f"it ended with {run.returncode}"
    except subprocess.TimeoutExpired:
        run, said = None, "it did not end within 120 s"
    if run is not None and run.returncode == 0:
        return True
    warnings.warn(f"faiss fails its self-test on the GPU, so it is not used: {said}", stacklevel=2)
    return False


class _Torch:
    """The gallery itself; every search is exact."""

    backend = "torch"

    def __init__(self, gallery: Tensor, metric: str, index: str) -> None:
        self.gallery, self.metric = gallery, metric
        self.count, self.width = gallery.shape

    def find(self, queries: Tensor, k: int, block: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        gallery = self.gallery.to(queries.device)
        return nearest(queries, gallery, k, self.metric, block)

    def write(self, path: str | Path) -> None:
        torch.save({"gallery": self.gallery.cpu()}, path)

    @classmethod
    def read(cls, path: str | Path, metric: str, index: str) -> _Torch:
        return cls(torch.load(path, weights_only=True)["gallery"], metric, index)


class _Faiss:
    """An index of faiss, on the CPU, or on the gallery's GPU if that works."""

    backend = "faiss"

    def __init__(self, gallery: Tensor, metric: str, index: str) -> None:
        faiss = _faiss()
        native = _MAKE[index](faiss, len(gallery), gallery.shape[1], metric)
        points = _array(gallery)
        with _threads(faiss):
            native.train(points)
            native.add(points)
        self._take(native, metric, index)
        if gallery.is_cuda and index == "flat" and gpu_faiss_works():
            resources = faiss.StandardGpuResources()
            resources.noTempMemory()  # it would take 1.5 GB from whoever trains on the same GPU
            self.searched = faiss.index_cpu_to_gpu(resources, gallery.device.index or 0, native)
            self.resources, self.most = resources, _GPU_MOST

    def _take(self, native: Any, metric: str, index: str) -> None:
        self.native, self.metric, self.index = native, metric, index
        self.searched, self.most = native, native.ntotal + 1
        self.count, self.width = native.ntotal, native.d

    def find(self, queries: Tensor, k: int, block: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        exact = self.index == "flat"
        asked = min(k + exact, self.count)
        if asked > self.most:
            return nearest(queries, self._gallery().to(queries.device), k, self.metric, block)
        faiss = _faiss()
        if self.index == "hnsw":
            self.native.hnsw.efSearch = max(64, 2 * asked)
        with _threads(faiss):
            values, ids = map(torch.from_numpy, self.searched.search(_array(queries), asked))

        def again(rows: Tensor) -> tuple[Tensor, Tensor]:
            return nearest(queries[rows].cpu(), self._gallery(), k, self.metric, block)

        found = untie(values, ids, k, self.metric == "ip", again if exact else None)
        return found[0].to(queries.device), found[1].to(queries.device)

    def _gallery(self) -> Tensor:
        """The copy that faiss has of the gallery, as a view."""
        view = _faiss().rev_swig_ptr(self.native.get_xb(), self.count * self.width)
        return torch.from_numpy(view).view(self.count, self.width)

    def write(self, path: str | Path) -> None:
        _faiss().write_index(self.native, str(path))

    @classmethod
    def read(cls, path: str | Path, metric: str, index: str) -> _Faiss:
        store = cls.__new__(cls)
        store._take(_faiss().read_index(str(path)), metric, index)
        return store


_STORES: dict[str, type[_Torch] | type[_Faiss]] = {"torch": _Torch, "faiss": _Faiss}


def _flat(faiss: ModuleType, count: int, width: int, metric: str) -> Any:
    return faiss.IndexFlat(width, _measure(faiss, metric))


def _hnsw(faiss: ModuleType, count: int, width: int, metric: str) -> Any:
    native = faiss.IndexHNSWFlat(width, 32, _measure(faiss, metric))
    native.hnsw.efConstruction = 128
    return native


def _ivf(faiss: ModuleType, count: int, width: int, metric: str) -> Any:
    """4 sqrt(N) lists, of at least 39 items, as faiss advises; an eighth of them is searched."""
    lists = max(1, min(round(4 * count**0.5), count // 39))
    quantizer = _flat(faiss, count, width, metric)
    native = faiss.IndexIVFFlat(quantizer, width, lists, _measure(faiss, metric))
    native.nprobe = min(lists, max(8, lists // 8))
    native.cp.min_points_per_centroid = 1  # a gallery that small needs no warning
    return native


_MAKE = {"flat": _flat, "hnsw": _hnsw, "ivf": _ivf}


def _measure(faiss: ModuleType, metric: str) -> int:
    return {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}[metric]


def _faiss() -> ModuleType:
    return optional("faiss", "metric", "The search backend 'faiss'")


def _has_faiss() -> bool:
    with contextlib.suppress(ImportError):
        return bool(_faiss())
    return False


@contextlib.contextmanager
def _threads(faiss: ModuleType) -> Iterator[None]:
    """As many threads as torch has, for faiss, which has an OpenMP of its own."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _array(t: Tensor) -> Any:
    return t.cpu().contiguous().numpy()


def _choose(backend: str, index: str, device: torch.device) -> str:
    """'auto' stays where the gallery is: faiss on the CPU, on a GPU only if it works there."""
    if backend != "auto":
        return backend
    if index != "flat":
        return "faiss"
    works = _has_faiss() if device.type == "cpu" else device.type == "cuda" and gpu_faiss_works()
    return "faiss" if works else "torch"


def _without(values: Tensor, ids: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """One neighbour less: the own id, or the last one where that is not among them. In place."""
    if own is None:
        return values, ids
    own = own.to(ids.device).masked_fill(own.to(ids.device) < 0, -2)
    late = (ids[:, 0] != own).nonzero()[:, 0]  # few: a query is nearest to itself
    dropped = ids[late] == own[late, None]
    dropped[:, -1] |= ~dropped.any(1)
    rest = values[late][~dropped], ids[late][~dropped]
    values, ids = values[:, 1:], ids[:, 1:]
    values[late], ids[late] = (t.view(len(late), ids.shape[1]) for t in rest)
    return values, ids


def _check_exclude(exclude: Tensor | None, queries: int, gallery: int | None) -> int:
    """How many neighbours more must be found: 1 if anything is left out."""
    if exclude is None:
        return 0
    if exclude.shape != (queries,):
        raise ValueError(
            f"search needs exclude (Q,), one id per query, got {tuple(exclude.shape)} for "
            f"{queries} queries."
        )
    most = int(exclude.max()) if len(exclude) else -1
    if gallery is not None and most >= gallery:
        raise ValueError(f"search needs exclude < {gallery}, the gallery's size, got {most}.")
    return int(most >= 0)


def _check_k(k: int, gallery: int, extra: int) -> None:
    if not 1 <= k <= gallery - extra:
        less = ", one of them left out" if extra else ""
        raise ValueError(
            f"search needs k between 1 and {gallery - extra}, got {k}: gallery smaller than K "
            f"({gallery} items{less})."
        )


def _warn_of_memory(queries: int, gallery: int, width: int, k: int, device: torch.device) -> None:
    need, free = memory_estimate(queries, gallery, width, k), _free_bytes(device)
    if free is not None and need > free:
        warnings.warn(
            f"This search takes about {need / 2**30:.1f} GiB beyond the embeddings, and "
            f"{free / 2**30:.1f} GiB are free: search fewer queries at a time, or a smaller k.",
            stacklevel=3,
        )


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of a device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, StopIteration):  # what caches would give back counts as free
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1])
    if device.type != "cpu" or "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _agree(facts: list[Any], k: int, queries_sharded: bool) -> tuple[list[int], int]:
    """Offsets of all shards, and how many neighbours more are needed; the same on all ranks."""
    for rank, fact in enumerate(facts):
        if fact[0] is not None:
            raise ValueError(f"sharded_search on rank {rank}: {fact[0]}")
    queries, sizes, widths = ([fact[i] for fact in facts] for i in (1, 2, 3))
    if len(set().union(*widths)) > 1:
        found = sorted(set().union(*widths))
        raise ValueError(f"sharded_search needs one width on all ranks, got {found}.")
    if not queries_sharded and len(set(queries)) > 1:
        raise ValueError(
            f"sharded_search needs the same queries on all ranks, got {queries} of them; "
            f"queries of each rank's own need queries_sharded=True."
        )
    running = [sum(sizes[:rank]) for rank in range(len(sizes))]
    offsets = [r if fact[4] is None else fact[4] for r, fact in zip(running, facts, strict=True)]
    spans = sorted((o, o + n) for o, n in zip(offsets, sizes, strict=True) if n)
    if any(a[1] > b[0] for a, b in itertools.pairwise(spans)):
        raise ValueError(f"sharded_search needs ids that do not overlap, got the spans {spans}.")
    extra = max(fact[5] for fact in facts)
    _check_k(k, sum(sizes), extra)
    return offsets, extra


def _merged(
    shard: Index, offset: int, k: int, block: tuple[int, int] | None, queries: Tensor
) -> tuple[Tensor, Tensor]:
    """The k nearest of all shards, on all ranks."""
    largest = METRICS[shard.metric][1] == "ip"
    values = queries.new_full((len(queries), k), -torch.inf if largest else torch.inf)
    ids = torch.full((len(queries), k), -1, device=queries.device)
    here = min(k, len(shard)) if shard._store is not None else 0
    if here:
        values[:, :here], found = shard.store.find(queries, here, block)
        ids[:, :here] = torch.where(found < 0, found, found + offset)
    world = dist.get_world_size()
    all_values = [torch.empty_like(values) for _ in range(world)]
    all_ids = [torch.empty_like(ids) for _ in range(world)]
    dist.all_gather(all_values, values)
    dist.all_gather(all_ids, ids)
    values, ids = settle(torch.cat(all_values, 1), torch.cat(all_ids, 1), largest)
    return values[:, :k], ids[:, :k]
