"""Retrieval scores of a set of embeddings, from one search for neighbors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mixplug.catalog import register
from mixplug.functional.exact_search import check_embeddings
from mixplug.functional.representation import utilization
from mixplug.metrics.scores import (
    NAMES,
    NOT_SHARES,
    OF_EMBEDDINGS,
    OF_NEIGHBORS,
    RESULTS,
    Found,
)
from mixplug.retrieval.search import METRICS, Index, in_range

Labeled = tuple[Tensor, Tensor]
_BLOCK = 4096  # queries whose neighbors are held at a time


@register("RecallAtK", kind="metric", reference="thesis 4.4.1", hosts=("mm", "torch"))
@dataclass
class RecallAtK:
    """Collects embeddings and labels, and gives Recall@K and other retrieval scores in percent.

        Recall@K = 100 / Q · #{queries with one of their class among their K nearest neighbors}

    ::

        metric = mixplug.RecallAtK(ks=(1, 2), scores=("recall", "map_at_r"))
        metric.update(embeddings, labels)  # for every batch
        metric.compute()  # {'recall@1': 62.3, 'recall@2': 73.9, 'map@r': 25.1}

    All scores are in percent, except 'alignment', 'uniformity' and 'utilization', which are not
    shares; of these three, lower is better. The evaluator ``mixplug.RecallAtK`` of mm configs
    prints the same numbers.

    Neighbors are searched once, as many as the largest K and the largest class (R) need, 4096
    queries at a time, so that memory does not grow with Q x k. R is about ten in product data and
    hundreds where classes are few. The search then takes longer, and 'map_at_r' and 'r_precision'
    can be left out. 'nmi' makes as many clusters as there are classes, which with thousands of
    classes takes longer than everything else.

    Attributes:
        ks: the values of K in Recall@K.
        scores: 'recall', 'map_at_r', 'r_precision', 'precision_at_1', 'nmi', 'alignment',
            'uniformity', or several of them, or 'all'.
        backend: of the search, 'auto', 'faiss' or 'torch'.
        index: of the search, 'flat', which is exact, 'hnsw' or 'ivf'.
        seed: seed of the clusters that 'nmi' needs.
        metric: by which neighbors are found: 'cosine', which brings all embeddings to length 1
            first, or 'l2' or 'ip' of embeddings as they are.
        device: where neighbors are searched, 'cpu', 'cuda' or 'cuda:1'; None takes the GPU if
            torch sees one, else the CPU. Embeddings stay on the CPU: the gallery moves once,
            queries as they are searched. Everything else is computed on the CPU.

    Raises:
        ValueError: a setting that is not allowed.
    """

    ks: Sequence[int] = (1, 2, 4, 8)
    scores: str | Sequence[str] = "recall"
    backend: str = "auto"
    index: str = "flat"
    seed: int = 0
    metric: str = "cosine"
    device: str | None = None
    _kept: list[Labeled] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.scores, str):
            self.scores = NAMES if self.scores == "all" else (self.scores,)
        unknown = [name for name in self.scores if name not in NAMES]
        if unknown or not self.scores:
            raise ValueError(
                f"RecallAtK needs scores of {NAMES}, or 'all', got {tuple(self.scores)!r}."
            )
        if "recall" in self.scores and (not self.ks or min(self.ks) < 1):
            raise ValueError(f"RecallAtK needs ks >= 1, got {self.ks!r}.")
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
        """Forget everything."""
        self._kept = []

    def compute(
        self,
        gallery: Labeled | None = None,
        train: Tensor | None = None,
        mixed: Tensor | None = None,
    ) -> dict[str, float]:
        """Scores of everything that was added, in percent where they are shares.

        Args:
            gallery: embeddings (N, D) and classes (N,) among which neighbors are searched, as in
                In-Shop; nothing is left out then. None searches among the queries, and leaves each
                query out by its own id. Scores that need no neighbors are those of the queries.
            train: training embeddings X (N, D), for 'utilization': u(Q, X) of (4.25).
            mixed: mixed training embeddings, for 'utilization_mixed': u(Q, X and mixed).

        Returns:
            'recall@K' for every K, 'precision@1', 'r_precision', 'map@r', 'nmi', 'alignment',
            'uniformity', as far as asked for, and 'utilization', 'utilization_mixed'. A score that
            this data set does not define, such as 'alignment' where no two queries have one class,
            or 'map@r' where no query has a relevant item, is NaN, and a warning says why.

        Raises:
            ValueError: nothing was added, a gallery smaller than K or of other width, NaN, zeros
                with 'cosine', mixed without train, or no score is defined.
        """
        found = self._fractions(gallery, train, mixed)
        return {
            name: value if name.startswith(NOT_SHARES) else 100 * value
            for name, value in found.items()
        }

    def _fractions(
        self, gallery: Labeled | None, train: Tensor | None, mixed: Tensor | None
    ) -> dict[str, float]:
        if mixed is not None and train is None:
            raise ValueError("utilization_mixed needs train too: the augmented set has both.")
        queries, labels = self._queries()
        prepare = METRICS[self.metric][0]
        queries = prepare(queries)
        undefined: dict[str, str] = {}
        results = self._of_neighbors(queries, labels, gallery, undefined)
        for name in self.scores:
            if name in OF_EMBEDDINGS:
                try:
                    results |= OF_EMBEDDINGS[name](queries, labels, self.seed)
                except ValueError as error:  # embeddings are finite: the score is not defined
                    undefined[name] = str(error)
                    results[name] = math.nan
        self._say(undefined)
        if train is not None:
            known = prepare(train.detach().to("cpu", torch.float32))
            results["utilization"] = float(utilization(queries, known))
            if mixed is not None:
                known = torch.cat([known, prepare(mixed.detach().to("cpu", torch.float32))])
                results["utilization_mixed"] = float(utilization(queries, known))
        return results

    def _say(self, undefined: Mapping[str, str]) -> None:
        """Warn of scores that are not defined; ValueError if none is."""
        for name, why in undefined.items():
            if len(undefined) == len(self.scores):
                raise ValueError(why)
            warnings.warn(f"The score {name!r} is NaN: {why}", stacklevel=4)

    def _queries(self) -> Labeled:
        if not self._kept:
            raise ValueError("RecallAtK has nothing to score: call update first.")
        if len(self._kept) > 1:  # from now on one batch, so that there are no two copies
            embeddings = torch.cat([e for e, _ in self._kept])
            self._kept = [(embeddings, torch.cat([y for _, y in self._kept]))]
        check_embeddings("RecallAtK", "embeddings", self._kept[0][0])
        return self._kept[0]

    def _of_neighbors(
        self,
        queries: Tensor,
        labels: Tensor,
        gallery: Labeled | None,
        undefined: dict[str, str],
    ) -> dict[str, float]:
        """Means over all queries of what is found in blocks; undefined scores are NaN."""
        wanted = {name: OF_NEIGHBORS[name] for name in self.scores if name in OF_NEIGHBORS}
        if not wanted:
            return {}
        items, classes = queries, labels
        if gallery is not None:
            items, classes = _labeled("compute", *gallery, queries.shape[1])
            check_embeddings("RecallAtK", "embeddings of the gallery", items)
            items = METRICS[self.metric][0](items)
        queries, items = in_range(queries, items)
        relevant = _relevant(labels, classes) - int(gallery is None)
        sizes = max(self.ks, default=1), int(relevant.max())
        k = max(1, *(need(*sizes) for _, need, _ in wanted.values()))
        totals: dict[str, float] = {}
        weights = {name: int(counted(relevant).sum()) for name, (_, _, counted) in wanted.items()}
        for name in [name for name, weight in weights.items() if not weight]:
            undefined[name] = "No query has a relevant item in the gallery, which R needs."
            totals[RESULTS.get(name, name)] = math.nan
            del wanted[name]
        if not wanted:
            return totals
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


@dataclass
class RetrievalMetrics(RecallAtK):
    """The old name of :class:`RecallAtK`. It gives fractions, and all scores by default.

    It works until mixplug 0.3, with a DeprecationWarning.
    """

    scores: str | Sequence[str] = NAMES

    def __post_init__(self) -> None:
        warnings.warn(
            "RetrievalMetrics is now RecallAtK, whose scores are in percent. The old name, with "
            "fractions, works until mixplug 0.3.",
            DeprecationWarning,
            stacklevel=3,
        )
        super().__post_init__()

    def compute(
        self,
        gallery: Labeled | None = None,
        train: Tensor | None = None,
        mixed: Tensor | None = None,
    ) -> dict[str, float]:
        """As :meth:`RecallAtK.compute`, as fractions."""
        return self._fractions(gallery, train, mixed)


def _labeled(who: str, embeddings: Tensor, labels: Tensor, width: int | None) -> Labeled:
    """On the CPU, in float32 and int64."""
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"RecallAtK.{who} needs embeddings (B, D) and labels (B,), got "
            f"{tuple(embeddings.shape)} and {tuple(labels.shape)}."
        )
    if labels.is_floating_point() or (labels < 0).any():
        raise ValueError(
            f"RecallAtK.{who} needs integer labels >= 0, got {labels.dtype}, "
            f"at least {labels.min()}."
        )
    if width not in (None, embeddings.shape[1]):
        raise ValueError(
            f"RecallAtK.{who} needs embeddings of the width {width} that came before, got "
            f"{embeddings.shape[1]}."
        )
    return embeddings.detach().to("cpu", torch.float32), labels.detach().to("cpu", torch.int64)


def _check_device(device: str | None, gpus: int) -> None:
    known = ("cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus)))
    if device is not None and device not in known:
        raise ValueError(
            f"RecallAtK needs device None or one that torch has here, {known}, got {device!r}."
        )


def _relevant(labels: Tensor, classes: Tensor) -> Tensor:
    """How many of the gallery's classes equal each label, (Q,)."""
    known, place = torch.cat([classes, labels]).unique(return_inverse=True)
    return place[: len(classes)].bincount(minlength=len(known))[place[len(classes) :]]
