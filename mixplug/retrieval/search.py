"""Nearest neighbors by faiss, or exactly by torch in blocks; the query is left out by its id.

Letters: Q queries, N gallery items, D width, k neighbors. Distances are similarities, largest
first, for 'ip' and 'cosine', and squared Euclidean distances, smallest first, for 'l2'.

Order of ties: equal distances come by ascending id. One neighbor more than asked for is searched
to see whether k cuts through a tie; such queries are searched again by torch, which looks at all
items. What is equal is what the backend computes in float32: between backends, and between faiss'
own ways for few and for many queries, distances differ in their last digits. The approximate
indexes order what they find in the same way, but do not see what they miss.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mixplug.functional.exact_search import check_embeddings
from mixplug.retrieval.exclusion import check_exclude, check_k, without
from mixplug.retrieval.memory import BLOCK, warn_of_memory
from mixplug.retrieval.stores import STORES, FaissStore, TorchStore, choose

BACKENDS = ("auto", "faiss", "torch")
INDEXES = ("flat", "hnsw", "ivf")


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
        k: neighbors per query.
        exclude: (Q,) int64, the id of the item to leave out per query, -1 for none; arange(Q) where
            the queries are the gallery.
        backend: 'faiss', 'torch', or 'auto': faiss if it is installed, on a GPU only if it passes
            its self-test there, else torch.
        index: 'flat' is exact; 'hnsw' and 'ivf' are approximate, of faiss.
        metric: 'ip', 'l2' or 'cosine'.
        block: of torch's search, see :func:`mixplug.functional.exact_search.nearest`.

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
        self._store: TorchStore | FaissStore | None = None

    def build(self, gallery: Tensor) -> Index:
        """Take (N, D) embeddings; torch keeps the tensor itself, faiss a copy."""
        check_embeddings("search", "gallery", gallery)
        prepare, kind = METRICS[self.metric]
        store = STORES[choose(self.backend, self.index, gallery.device)]
        self._store = store(prepare(gallery.detach().float()), kind, self.index)
        return self

    @property
    def store(self) -> TorchStore | FaissStore:
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
        extra = check_exclude(exclude, len(queries), len(self))
        check_k(k, len(self), extra)
        warn_of_memory(len(queries), len(self), queries.shape[1], k, queries.device)
        values = queries.new_empty(len(queries), k)
        ids = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            found = self.store.find(queries[rows], k + extra, block)
            own = exclude[rows] if extra and exclude is not None else None
            values[rows], ids[rows] = without(*found, own)
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
        store = STORES[facts["backend"]].read(path, METRICS[loaded.metric][1], loaded.index)
        if (store.width, store.count) != (facts["width"], facts["count"]):
            raise ValueError(
                f"{path} holds {store.count} embeddings of width {store.width}, but {path}.json "
                f"says {facts['count']} of width {facts['width']}."
            )
        loaded._store = store
        return loaded
