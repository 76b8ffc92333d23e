"""Stores of a gallery, which search it: a PyTorch tensor, or an index of faiss.

A store holds preprocessed embeddings and compares them by 'ip' or 'l2'. It finds k neighbors, with
ties in the order of ids, on the device of the queries. It can be written to a file and read again.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mixplug.functional.exact_search import nearest, resolve_ties
from mixplug.retrieval.faiss_library import array, gpu_faiss_works, has_faiss, load_faiss, threads

_GPU_LARGEST_K = 2048  # limit of faiss on a GPU


class TorchStore:
    """A gallery as a tensor. Every search is exact."""

    backend = "torch"

    def __init__(self, gallery: Tensor, metric: str, index: str) -> None:
        self.gallery, self.metric = gallery, metric
        self.count, self.width = gallery.shape

    def find(self, queries: Tensor, k: int, block: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        """Distances and ids of the k nearest items, (Q, k) each."""
        gallery = self.gallery.to(queries.device)
        return nearest(queries, gallery, k, self.metric, block)

    def write(self, path: str | Path) -> None:
        """Write the gallery to PATH."""
        torch.save({"gallery": self.gallery.cpu()}, path)

    @classmethod
    def read(cls, path: str | Path, metric: str, index: str) -> TorchStore:
        """Read a file that :meth:`write` wrote."""
        return cls(torch.load(path, weights_only=True)["gallery"], metric, index)


class FaissStore:
    """A gallery as an index of faiss. It is on the GPU of the gallery if faiss works there."""

    backend = "faiss"

    def __init__(self, gallery: Tensor, metric: str, index: str) -> None:
        faiss = load_faiss()
        native = _MAKE[index](faiss, len(gallery), gallery.shape[1], metric)
        points = array(gallery)
        with threads(faiss):
            native.train(points)
            native.add(points)
        self._set_index(native, metric, index)
        if gallery.is_cuda and index == "flat" and gpu_faiss_works():
            resources = faiss.StandardGpuResources()
            resources.noTempMemory()  # by default faiss would reserve 1.5 GB of the GPU
            self.searched = faiss.index_cpu_to_gpu(resources, gallery.device.index or 0, native)
            self.resources, self.largest_k = resources, _GPU_LARGEST_K

    def _set_index(self, native: Any, metric: str, index: str) -> None:
        self.native, self.metric, self.index = native, metric, index
        self.searched, self.largest_k = native, native.ntotal + 1
        self.count, self.width = native.ntotal, native.d

    def find(self, queries: Tensor, k: int, block: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        """Distances and ids of the k nearest items, (Q, k) each."""
        exact = self.index == "flat"
        count = min(k + exact, self.count)
        if count > self.largest_k:
            return nearest(queries, self._gallery().to(queries.device), k, self.metric, block)
        faiss = load_faiss()
        if self.index == "hnsw":
            self.native.hnsw.efSearch = max(64, 2 * count)
        with threads(faiss):
            values, ids = map(torch.from_numpy, self.searched.search(array(queries), count))

        def search_all(rows: Tensor) -> tuple[Tensor, Tensor]:
            return nearest(queries[rows].cpu(), self._gallery(), k, self.metric, block)

        values, ids = resolve_ties(
            values, ids, k, self.metric == "ip", search_all if exact else None
        )
        return values.to(queries.device), ids.to(queries.device)

    def _gallery(self) -> Tensor:
        """The gallery (N, D), as a view of the memory of faiss."""
        view = load_faiss().rev_swig_ptr(self.native.get_xb(), self.count * self.width)
        return torch.from_numpy(view).view(self.count, self.width)

    def write(self, path: str | Path) -> None:
        """Write the gallery to PATH."""
        load_faiss().write_index(self.native, str(path))

    @classmethod
    def read(cls, path: str | Path, metric: str, index: str) -> FaissStore:
        """Read a file that :meth:`write` wrote."""
        store = cls.__new__(cls)
        store._set_index(load_faiss().read_index(str(path)), metric, index)
        return store


STORES: dict[str, type[TorchStore] | type[FaissStore]] = {"torch": TorchStore, "faiss": FaissStore}


def _flat(faiss: ModuleType, count: int, width: int, metric: str) -> Any:
    return faiss.IndexFlat(width, _faiss_metric(faiss, metric))


def _hnsw(faiss: ModuleType, count: int, width: int, metric: str) -> Any:
    native = faiss.IndexHNSWFlat(width, 32, _faiss_metric(faiss, metric))
    native.hnsw.efConstruction = 128
    return native


def _ivf(faiss: ModuleType, count: int, width: int, metric: str) -> Any:
    """4 sqrt(N) lists of at least 39 items, as faiss recommends; a search visits an eighth."""
    lists = max(1, min(round(4 * count**0.5), count // 39))
    quantizer = _flat(faiss, count, width, metric)
    native = faiss.IndexIVFFlat(quantizer, width, lists, _faiss_metric(faiss, metric))
    native.nprobe = min(lists, max(8, lists // 8))
    native.cp.min_points_per_centroid = 1  # no warning for a small gallery
    return native


_MAKE = {"flat": _flat, "hnsw": _hnsw, "ivf": _ivf}


def _faiss_metric(faiss: ModuleType, metric: str) -> int:
    return {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}[metric]


def choose_backend(backend: str, index: str, device: torch.device) -> str:
    """Resolve the backend 'auto' for a gallery on ``device``. Others are returned unchanged.

    Approximate indexes need faiss. For the index 'flat', faiss is chosen if it is installed and, on
    a GPU, works there; otherwise PyTorch is chosen.
    """
    if backend != "auto":
        return backend
    if index != "flat":
        return "faiss"
    works = has_faiss() if device.type == "cpu" else device.type == "cuda" and gpu_faiss_works()
    return "faiss" if works else "torch"
