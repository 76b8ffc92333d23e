"""mm evaluator of retrieval: ``val_evaluator=dict(type='mixplug.RecallAtK', ks=(1, 2, 4, 8))``."""

from __future__ import annotations

from collections.abc import Sequence

from mixplug.hosts.mm.evaluation.embeddings import EmbeddingMetric, Rows
from mixplug.metrics import retrieval
from mixplug.metrics.augmented import mixed_embeddings
from mixplug.metrics.scores import NOT_SHARES
from mixplug.registry import METRICS


@METRICS.register_module()
class RecallAtK(EmbeddingMetric):
    """Recall@K and other retrieval scores of the embeddings in data samples, in percent.

    It is :class:`mixplug.metrics.RecallAtK` with the embeddings of a whole test. The roles of data
    samples decide what is measured:

    - 'query', and samples without a role: queries, searched for among each other, each without
      itself;
    - 'gallery': if there is any, queries are searched for among these instead, as in In-Shop;
    - 'train': if there is any, also 'utilization' u(Q, X) of the training set by the queries
      (4.25), and 'utilization_mixed' of the training set and its mixtures. These are mixtures of
      embeddings of different classes, λ ~ Beta(2, 2), ℓ2-normalized.

    A ConcatDataset of the test and the training set thus gives everything in one pass (see
    mm_configs). On several GPUs the first rank gets all embeddings in the end, and searches them
    on its GPU; the result is that of one GPU.

    Args:
        ks: the values of K in Recall@K.
        scores: 'recall', 'map_at_r', 'r_precision', 'precision_at_1', 'nmi', 'alignment',
            'uniformity', or several of them, or 'all'. Alignment, uniformity and utilization are
            not in percent, and lower is better. (This key is not named ``metrics`` because mmengine
            takes an evaluator with such a key for another one.)
        mixed_epochs: how often every training embedding is mixed.
        metric: by which neighbors are found, 'cosine', 'l2' or 'ip'.
        backend: of the search, 'auto', 'faiss' or 'torch'.
        index: of the search, 'flat', which is exact, 'hnsw' or 'ivf'.
        seed: seed of the mixtures, and of the clusters of 'nmi'.
        device: where neighbors are searched, 'cpu', 'cuda' or 'cuda:1'; None takes the GPU of the
            process that scores if torch sees one, else the CPU.
        collect_device: where mmengine collects the results of several GPUs, 'cpu' or 'gpu'.
        prefix: put before the names of the scores, as in 'PREFIX/recall@1'; None puts nothing.
        collect_dir: folder through which the CPU collects, visible to all ranks; None makes one.

    Raises:
        ValueError: a setting that is not allowed.
    """

    higher_is_better = ("recall@", "precision@1", "r_precision", "map@r", "nmi")
    lower_is_better = NOT_SHARES

    def __init__(
        self,
        ks: Sequence[int] = (1, 2, 4, 8),
        scores: str | Sequence[str] = "recall",
        mixed_epochs: int = 1,
        metric: str = "cosine",
        backend: str = "auto",
        index: str = "flat",
        seed: int = 0,
        device: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if mixed_epochs < 1:
            raise ValueError(f"RecallAtK needs mixed_epochs >= 1, got {mixed_epochs}.")
        self.mixed_epochs, self.seed = mixed_epochs, seed
        names = scores if isinstance(scores, str) else tuple(scores)
        self.retrieval = retrieval.RecallAtK(tuple(ks), names, backend, index, seed, metric, device)

    def compute_metrics(self, results: list[Rows]) -> dict[str, float]:
        """Scores of all examples.

        Raises:
            ValueError: no example is a query.
        """
        given = self.by_role(results)
        gallery = given["gallery"] if len(given["gallery"][0]) else None
        train = mixed = None
        if len(given["train"][0]):
            train, classes = given["train"]
            mixed = mixed_embeddings(train, classes, self.mixed_epochs, seed=self.seed)
        self.retrieval.reset()
        self.retrieval.update(*given["query"])
        found = self.retrieval.compute(gallery, train, mixed)
        self.retrieval.reset()
        return found
