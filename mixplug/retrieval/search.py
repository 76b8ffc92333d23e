"""Nearest-neighbor search with faiss, or exactly with PyTorch in blocks.

Letters: Q queries, N gallery items, D width, k neighbors. Distances are similarities, largest
first, for 'ip' and 'cosine', and squared Euclidean distances, smallest first, for 'l2'.

Neighbors at equal distances are in the order of their ids. To detect a tie at the k-th neighbor,
the search finds one neighbor more; queries with such a tie are searched again with PyTorch, over
all items. Distances are equal if the backend computes equal values in float32. These values differ
in the last digits between backends, and between the methods that faiss uses for few and for many
queries. Approximate indexes also order the neighbors that they find, but they can miss tied ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mixplug.functional.exact_search import check_embeddings
from mixplug.retrieval.exclusion import check_exclude, check_k, remove_excluded
from mixplug.retrieval.memory import BLOCK, warn_of_memory
from mixplug.retrieval.stores import STORES, FaissStore, TorchStore, choose_backend

BACKENDS = ("auto", "faiss", "torch")
INDEXES = ("flat", "hnsw", "ivf")
_LARGEST = 1e15  # squares of 1e30, summed over any width, are in the range of float32


def unit(t: Tensor) -> Tensor:
    """ℓ2-normalize rows (B, D).

    Raises:
        ValueError: a row is zero, or a value is not finite.
    """
    norm = torch.linalg.vector_norm(t, dim=1, keepdim=True)
    if not (norm.isfinite() & (norm > 0)).all():
        check_embeddings("The metric 'cosine'", "embeddings", t)
        if bool((norm == 0).any()):
            row = int((norm[:, 0] == 0).nonzero()[0, 0])
            zero = f"The metric 'cosine' needs nonzero embeddings, but row {row} is zero."
            raise ValueError(zero)
        t = t / t.abs().amax(1, keepdim=True)  # its squares are too large for float32
        norm = torch.linalg.vector_norm(t, dim=1, keepdim=True)
    return t / norm


def in_range(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Embeddings divided by one number, if their squared distances exceed float32.

    The order of distances and inner products stays. faiss would end the process where it clusters
    infinite distances.
    """
    largest = max(float(t.abs().amax()) for t in tensors)
    return tuple(t / largest for t in tensors) if largest > _LARGEST else tensors


# Metric to the preprocessing of embeddings and the metric of the backend.
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
        queries: (Q, D), on the CPU or a GPU. Distances are computed in float32.
        gallery: (N, D).
        k: number of neighbors per query.
        exclude: id of the item to exclude for each query, (Q,) int64, -1 for none. Use arange(Q)
            if the gallery is the queries.
        backend: 'faiss', 'torch' or 'auto'. 'auto' is faiss if it is installed and, on a GPU,
            passes its self-test; otherwise it is PyTorch.
        index: 'flat' is exact; 'hnsw' and 'ivf' are approximate indexes of faiss.
        metric: 'ip' (inner product), 'l2' or 'cosine'.
        block: block sizes of PyTorch's search, see
            :func:`mixplug.functional.exact_search.nearest`.

    Returns:
        Distances (Q, k) float32 and ids (Q, k) int64, on the device of the queries. Ids are -1
        where an approximate index found fewer than k neighbors.

    Raises:
        ValueError: an unknown option, shapes that do not match, values that are not finite, zero
            embeddings with 'cosine', or k larger than the gallery.
        ImportError: 'faiss' is requested but not installed.
    """
    built = Index(index, metric, backend).build(gallery)
    return built.search(queries, k, exclude=exclude, block=block)


def _require_range(name: str, metric: str, t: Tensor) -> None:
    if metric != "cosine" and in_range(t)[0] is not t:
        raise ValueError(
            f"search with metric {metric!r} computes in float32 and needs {name} up to "
            f"{_LARGEST:g}, got {float(t.abs().amax()):.3g}. Has the network diverged? Divide "
            f"queries and gallery by one number, or use 'cosine'."
        )


class Index:
    """A gallery that can be searched, saved and loaded. For the options, see :func:`search`.

    Args:
        index: 'flat', 'hnsw' or 'ivf'.
        metric: 'ip', 'l2' or 'cosine'.
        backend: 'auto', 'faiss' or 'torch'.

    Raises:
        ValueError: an unknown option, or an approximate index with the backend 'torch'.
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
            raise ValueError(f"The index {index!r} needs backend 'faiss' or 'auto', got 'torch'.")
        self.index, self.metric, self.backend = index, metric, backend
        self._store: TorchStore | FaissStore | None = None

    def build(self, gallery: Tensor) -> Index:
        """Set the gallery to embeddings (N, D). PyTorch stores the tensor itself, faiss a copy."""
        check_embeddings("search", "gallery", gallery)
        _require_range("gallery", self.metric, gallery)
        prepare, kind = METRICS[self.metric]
        store = STORES[choose_backend(self.backend, self.index, gallery.device)]
        self._store = store(prepare(gallery.detach().float()), kind, self.index)
        return self

    @property
    def store(self) -> TorchStore | FaissStore:
        """The backend object that stores the gallery."""
        if self._store is None:
            raise ValueError("This Index has no gallery. Call build or load first.")
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
        """Distances and ids of the k nearest items, see :func:`search`."""
        queries = self.prepared(queries)
        extra = check_exclude(exclude, len(queries), len(self))
        check_k(k, len(self), extra)
        warn_of_memory(len(queries), len(self), queries.shape[1], k, queries.device)
        values = queries.new_empty(len(queries), k)
        ids = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            neighbors = self.store.find(queries[rows], k + extra, block)
            excluded = exclude[rows] if extra and exclude is not None else None
            values[rows], ids[rows] = remove_excluded(*neighbors, excluded)
        return values, ids

    def prepared(self, queries: Tensor) -> Tensor:
        """Queries in float32, preprocessed like the gallery.

        Raises:
            ValueError: wrong shape, or values that the metric does not allow.
        """
        check_embeddings("search", "queries", queries)
        if queries.shape[1] != self.store.width:
            raise ValueError(
                f"search needs queries of width {self.store.width}, the width of the gallery, got "
                f"{queries.shape[1]}."
            )
        _require_range("queries", self.metric, queries)
        return METRICS[self.metric][0](queries.detach().float())

    def save(self, path: str | Path) -> None:
        """Write the gallery to PATH, and its options and size to PATH.json."""
        self.store.write(path)
        metadata: dict[str, str | int] = {
            "backend": self.store.backend,
            "index": self.index,
            "metric": self.metric,
        }
        metadata |= {"width": self.store.width, "count": self.store.count}
        Path(f"{path}.json").write_text(json.dumps(metadata, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Index:
        """Load an index that :meth:`save` wrote.

        Raises:
            ValueError: PATH and PATH.json do not match.
            FileNotFoundError: one of the files is missing.
            ImportError: the file is an index of faiss, which is not installed.
        """
        metadata = json.loads(Path(f"{path}.json").read_text())
        loaded = cls(metadata["index"], metadata["metric"], metadata["backend"])
        store = STORES[metadata["backend"]].read(path, METRICS[loaded.metric][1], loaded.index)
        if (store.width, store.count) != (metadata["width"], metadata["count"]):
            raise ValueError(
                f"{path} has {store.count} embeddings of width {store.width}, but {path}.json "
                f"requires {metadata['count']} of width {metadata['width']}."
            )
        loaded._store = store
        return loaded
