"""k-NN evaluator of frozen features: ``val_evaluator=dict(type='mixplug.KNNAccuracy')``."""

from __future__ import annotations

from mixplug.functional.neighbors import knn_accuracy, knn_votes
from mixplug.hosts.mm.evaluation.embeddings import EmbeddingMetric, Rows
from mixplug.registry import METRICS
from mixplug.retrieval import search


@METRICS.register_module()
class KNNAccuracy(EmbeddingMetric):
    """Accuracy of k-nearest-neighbor classification by frozen features, in percent (6.5.3).

    Neighbors of data samples with the role 'query' are searched by cosine among those with the role
    'train'. ``train_cfg=dict(val_interval=n)`` evaluates every n epochs::

        val_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[
            dict(type='mixplug.RetrievalDataset', name='folder', data_root='labeled/train', ...),
            dict(type='mixplug.RetrievalDataset', name='folder', data_root='labeled/val',
                 split='test', ...)]))

    Args:
        k: number of neighbors that vote.
        temperature: of their weights, see :func:`mixplug.functional.knn_votes`; None gives all the
            same weight.
        backend: of the search, 'auto', 'faiss' or 'torch'.
        collect_device: where mmengine collects the results of several GPUs, 'cpu' or 'gpu'.
        prefix: put before the names of the scores, as in 'PREFIX/knn@20'; None puts nothing.
        collect_dir: folder through which the CPU collects, visible to all ranks; None makes one.

    Raises:
        ValueError: k < 1, or a temperature that is not > 0.
    """

    higher_is_better = ("knn@",)

    def __init__(
        self,
        k: int = 20,
        temperature: float | None = 0.07,
        backend: str = "auto",
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if k < 1 or (temperature is not None and not temperature > 0):
            raise ValueError(
                f"KNNAccuracy needs k >= 1 and temperature > 0 or None, got {k} and {temperature}."
            )
        self.k, self.temperature, self.backend = k, temperature, backend

    def compute_metrics(self, results: list[Rows]) -> dict[str, float]:
        """``knn@k``.

        Raises:
            ValueError: no query, or fewer than k examples with the role 'train'.
        """
        given = self.by_role(results)
        (queries, labels), (known, classes) = given["query"], given["train"]
        if len(known) < self.k:
            raise ValueError(
                f"KNNAccuracy needs at least k={self.k} examples with the role 'train' besides the "
                f"queries, got {len(known)}: test with a ConcatDataset of both."
            )
        s, ids = search(queries, known, self.k, metric="cosine", backend=self.backend)
        count = int(max(classes.max(), labels.max())) + 1
        votes = knn_votes(s, classes[ids], count, self.temperature)
        return {f"knn@{self.k}": 100 * knn_accuracy(votes, labels)}
