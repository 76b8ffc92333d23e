"""mm evaluators: ``val_evaluator=dict(type='mixplug.RecallAtK', ks=(1, 2, 4, 8))``."""

from __future__ import annotations

from collections.abc import Sequence

from mixplug.hosts.mm.evaluation.embeddings import EmbeddingMetric, Rows
from mixplug.metrics.augmented import mixed_embeddings
from mixplug.metrics.retrieval import RetrievalMetrics
from mixplug.metrics.scores import NAMES
from mixplug.registry import METRICS

LOWER_IS_BETTER = ("alignment", "uniformity", "utilization")


@METRICS.register_module()
class RecallAtK(EmbeddingMetric):
    """Recall@K of the embeddings in data samples, in percent, and whatever else is asked for.

    A data sample has ``pred_embedding`` and ``gt_label``, and may have the meta key ``role``, which
    mixplug.RetrievalDataset sets by its split; what a data set contains decides what is measured:

    - 'query', and what has no role: searched for among the queries, each without itself;
    - 'gallery': if there is any, queries are searched for there instead, as In-Shop has it;
    - 'train': if there is any, 'utilization' u(Q, X) of the training set by the queries (4.25),
      and 'utilization_mixed' of the training set and its mixtures, which are mixtures of
      embeddings of different classes, λ ~ Beta(2, 2), ℓ2-normalized.

    So a ConcatDataset of the test and the training set gives all in one pass (see mm_configs). On
    several GPUs the first rank has all embeddings in the end, and searches them on its GPU; the
    result is that of one GPU.

    Args:
        ks: the values of K.
        scores: 'recall', 'map_at_r', 'r_precision', 'precision_at_1', 'nmi', 'alignment',
            'uniformity', or several of them, or 'all'. Alignment, uniformity and utilization are
            not in percent, and lower is better. (To mmengine, an evaluator with a key ``metrics``
            is another one.)
        mixed_epochs: how often every training embedding is mixed.
        metric: 'cosine', 'l2' or 'ip', by which neighbors are found.
        backend: of the search, 'auto', 'faiss' or 'torch'.
        index: 'flat', which is exact, 'hnsw' or 'ivf'.
        seed: of mixtures and of the clusters of 'nmi'.
        device: where neighbors are searched, 'cpu', 'cuda' or 'cuda:1'; None takes the GPU of the
            process that scores if torch sees one, else the CPU.
        collect_device: mmengine's, where embeddings of several GPUs meet, 'cpu' or 'gpu'.
        prefix: mmengine's, put before the names; none as it is, so 'recall@1' is one.
        collect_dir: mmengine's.

    Raises:
        ValueError: a setting that is not allowed.
    """

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
        names = {"all": NAMES}.get(scores, (scores,)) if isinstance(scores, str) else scores
        self.mixed_epochs, self.seed = mixed_epochs, seed
        self.retrieval = RetrievalMetrics(
            tuple(ks), tuple(names), backend, index, seed, metric, device
        )

    def compute_metrics(self, results: list[Rows]) -> dict[str, float]:
        """Scores of all examples, fractions in percent.

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
        return {
            name: value if name.startswith(LOWER_IS_BETTER) else 100 * value
            for name, value in found.items()
        }
