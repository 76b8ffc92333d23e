"""What a set of embeddings is worth for retrieval, from one search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mixplug.catalog import register
from mixplug.functional.representation import utilization
from mixplug.metrics.scores import NAMES, OF_EMBEDDINGS, OF_NEIGHBORS, Found
from mixplug.retrieval.search import METRICS, Index

Labeled = tuple[Tensor, Tensor]
_BLOCK = 4096  # queries whose neighbors are held at a time


@register("RecallAtK", kind="metric", reference="thesis 4.4.1", hosts=("mm", "torch"))
@dataclass
class RetrievalMetrics:
    """Collects embeddings and labels; scores them as retrieval does.

    Neighbors are searched once, as many as the largest K and the largest class (R) need, 4096
    queries at a time, so that memory does not grow with Q x k. R is about ten in product data, and
    hundreds where classes are few: the search then takes longer, and 'map_at_r' and 'r_precision'
    may be left out. 'nmi' clusters into as many clusters as there are classes, which with
    thousands of classes takes longer than all else. All but alignment, uniformity and utilization
    are fractions, not percent.

    Attributes:
        ks: the values of K of Recall@K.
        scores: any of 'recall', 'map_at_r', 'r_precision', 'precision_at_1', 'nmi', 'alignment',
            'uniformity'.
        backend: of the search, 'auto', 'faiss' or 'torch'.
        index: 'flat', 'hnsw' or 'ivf'.
        seed: of the clusters that 'nmi' needs.
        metric: 'cosine', which brings all embeddings to length 1 first, or 'l2' or 'ip' as they
            are.
        device: where neighbors are searched, 'cpu', 'cuda' or 'cuda:1'; None takes this process'
            GPU if torch sees one, else the CPU. Embeddings stay on the CPU: the gallery moves once,
            queries as they are searched. All else is computed on the CPU.
    """

    ks: Sequence[int] = (1, 2, 4, 8)
    scores: Sequence[str] = NAMES
    backend: str = "auto"
    index: str = "flat"
    seed: int = 0
    metric: str = "cosine"
    device: str | None = None
    _kept: list[Labeled] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        unknown = [name for name in self.scores if name not in NAMES]
        if unknown or not self.scores:
            raise ValueError(f"RetrievalMetrics needs scores of {NAMES}, got {self.scores!r}.")
        if "recall" in self.scores and (not self.ks or min(self.ks) < 1):
            raise ValueError(f"RetrievalMetrics needs ks >= 1, got {self.ks!r}.")
        Index(self.index, self.metric, self.backend)  # refuses now what it would refuse at the end
        _check_device(self.device, torch.cuda.device_count())

    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Add a batch: embeddings (B, D) and classes (B,), kept on the CPU in float32.

        Raises:
            ValueError: shapes do not fit each other or what came before, or negative labels.
        """
        width = self._kept[0][0].shape[1] if self._kept else None
        self._kept.append(_labeled("update", embeddings, labels, width))

    def reset(self) -> None:
        """Forget all."""
        self._kept = []

    def compute(
        self,
        gallery: Labeled | None = None,
        train: Tensor | None = None,
        mixed: Tensor | None = None,
    ) -> dict[str, float]:
        """All scores of what was added.

        Args:
            gallery: embeddings (N, D) and classes (N,) to search instead, as In-Shop has them;
                nothing is left out then. None searches what was added, each query left out by its
                own id. The scores that know no neighbors are those of the queries.
            train: training embeddings X, for 'utilization': u(Q, X) of (4.25).
            mixed: mixed training embeddings, for 'utilization_mixed': u(Q, X and mixed).

        Returns:
            'recall@K' for every K, 'precision@1', 'r_precision', 'map@r', 'nmi', 'alignment',
            'uniformity', as far as asked for, and 'utilization', 'utilization_mixed'.

        Raises:
            ValueError: nothing was added, a gallery smaller than K or of other width, NaN, zeros
                with 'cosine', mixed without train, or no relevant item for any query where R is
                needed.
        """
        if mixed is not None and train is None:
            raise ValueError("utilization_mixed needs train too: the augmented set has both.")
        queries, labels = self._queries()
        prepare = METRICS[self.metric][0]
        queries = prepare(queries)
        results = self._of_neighbors(queries, labels, gallery)
        for name in self.scores:
            if name in OF_EMBEDDINGS:
                results |= OF_EMBEDDINGS[name](queries, labels, self.seed)
        if train is not None:
            known = prepare(train.detach().to("cpu", torch.float32))
            results["utilization"] = float(utilization(queries, known))
            if mixed is not None:
                known = torch.cat([known, prepare(mixed.detach().to("cpu", torch.float32))])
                results["utilization_mixed"] = float(utilization(queries, known))
        return results

    def _queries(self) -> Labeled:
        if not self._kept:
            raise ValueError("RetrievalMetrics has nothing to score: call update first.")
        if len(self._kept) > 1:  # from now on one batch, so that there are no two copies
            embeddings = torch.cat([e for e, _ in self._kept])
            self._kept = [(embeddings, torch.cat([y for _, y in self._kept]))]
        return self._kept[0]

    def _of_neighbors(
        self, queries: Tensor, labels: Tensor, gallery: Labeled | None
    ) -> dict[str, float]:
        """Means over all queries of what is found in blocks."""
        wanted = {name: OF_NEIGHBORS[name] for name in self.scores if name in OF_NEIGHBORS}
        if not wanted:
            return {}
        items, classes = queries, labels
        if gallery is not None:
            items, classes = _labeled("compute", *gallery, queries.shape[1])
            items = METRICS[self.metric][0](items)
        relevant = _relevant(labels, classes) - int(gallery is None)
        sizes = max(self.ks, default=1), int(relevant.max())
        k = max(1, *(need(*sizes) for _, need, _ in wanted.values()))
        totals: dict[str, float] = {}
        weights = {name: int(counted(relevant).sum()) for name, (_, _, counted) in wanted.items()}
        if not all(weights.values()):
            raise ValueError("No query has a relevant item in the gallery, which R needs.")
        for found in self._blocks(queries, labels, items, classes, relevant, k, gallery is None):
            for name, (score, _, counted) in wanted.items():
                share = int(counted(found.relevant).sum()) / weights[name]
                for key, value in score(found, self.ks).items() if share else ():
                    totals[key] = totals.get(key, 0.0) + share * value
        return totals

    def _blocks(
        self,
        queries: Tensor,
        labels: Tensor,
        items: Tensor,
        classes: Tensor,
        relevant: Tensor,
        k: int,
        among_themselves: bool,
    ) -> Iterator[Found]:
        """Neighbors of 4096 queries at a time."""
        metric = METRICS[self.metric][1]  # of what is prepared already
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        index = Index(self.index, metric, self.backend).build(items.to(device))
        padded = torch.cat([classes, classes.new_tensor([-1])])  # what id -1 points to
        for start in range(0, len(queries), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(queries)))
            own = torch.arange(rows.start, rows.stop) if among_themselves else None
            _, ids = index.search(queries[rows].to(device), k, exclude=own)
            yield Found(padded[ids.cpu()], labels[rows], relevant[rows])


def _labeled(who: str, embeddings: Tensor, labels: Tensor, width: int | None) -> Labeled:
    """On the CPU, in float32 and int64."""
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"RetrievalMetrics.{who} needs embeddings (B, D) and labels (B,), got "
            f"{tuple(embeddings.shape)} and {tuple(labels.shape)}."
        )
    if labels.is_floating_point() or (labels < 0).any():
        raise ValueError(
            f"RetrievalMetrics.{who} needs integer labels >= 0, got {labels.dtype}, "
            f"at least {labels.min()}."
        )
    if width not in (None, embeddings.shape[1]):
        raise ValueError(
            f"RetrievalMetrics.{who} needs embeddings of the width {width} that came before, got "
            f"{embeddings.shape[1]}."
        )
    return embeddings.detach().to("cpu", torch.float32), labels.detach().to("cpu", torch.int64)


def _check_device(device: str | None, gpus: int) -> None:
    known = ("cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus)))
    if device is not None and device not in known:
        raise ValueError(
            f"RetrievalMetrics needs device None or one that torch has here, {known}, got "
            f"{device!r}."
        )


def _relevant(labels: Tensor, classes: Tensor) -> Tensor:
    """How many of the gallery's classes equal each label, (Q,)."""
    known, place = torch.cat([classes, labels]).unique(return_inverse=True)
    return place[: len(classes)].bincount(minlength=len(known))[place[len(classes) :]]
