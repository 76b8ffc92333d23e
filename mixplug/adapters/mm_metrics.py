"""mm evaluators: ``val_evaluator=dict(type='mixplug.RecallAtK', ks=(1, 2, 4, 8))``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mixplug.metrics.augmented import mixed_embeddings
from mixplug.metrics.retrieval import RetrievalMetrics
from mixplug.metrics.scores import NAMES
from mixplug.registry import METRICS

ROLES = ("query", "gallery", "train")
LOWER_IS_BETTER = ("alignment", "uniformity", "utilization")


@METRICS.register_module()
class RecallAtK(BaseMetric):
    """Recall@K of the embeddings in data samples, in percent, and whatever else is asked for.

    A data sample has ``pred_embedding`` and ``gt_label``, and may have the meta key ``role``, which
    mixplug.RetrievalDataset sets by its split; what a data set contains decides what is measured:

    - 'query', and what has no role: searched for among the queries, each without itself;
    - 'gallery': if there is any, queries are searched for there instead, as In-Shop has it;
    - 'train': if there is any, 'utilization' u(Q, X) of the training set by the queries (4.25),
      and 'utilization_mixed' of the training set and its mixtures, which are mixtures of
      embeddings of different classes, λ ~ Beta(2, 2), ℓ2-normalised.

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
        metric: 'cosine', 'l2' or 'ip', by which neighbours are found.
        backend: of the search, 'auto', 'faiss' or 'torch'.
        index: 'flat', which is exact, 'hnsw' or 'ivf'.
        seed: of mixtures and of the clusters of 'nmi'.
        device: where neighbours are searched, 'cpu', 'cuda' or 'cuda:1'; None takes the GPU of the
            process that scores if torch sees one, else the CPU.
        collect_device: mmengine's, where embeddings of several GPUs meet, 'cpu' or 'gpu'.
        prefix: mmengine's, put before the names; none as it is, so 'recall@1' is one.
        collect_dir: mmengine's.

    Raises:
        ValueError: a setting that is not allowed.
    """

    default_prefix = ""

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

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep embedding, class and role of every example of a batch.

        Raises:
            ValueError: no embedding, or an unknown role.
        """
        for sample in data_samples:
            if "pred_embedding" not in sample or "gt_label" not in sample:
                raise ValueError(
                    f"RecallAtK needs data samples with pred_embedding, as MetricLearner gives "
                    f"them, and gt_label, got {sorted(sample)}."
                )
            if sample.get("role", "query") not in ROLES:
                raise ValueError(f"RecallAtK needs a role in {ROLES}, got {sample['role']!r}.")
        embeddings = torch.stack([sample["pred_embedding"] for sample in data_samples])
        rows = embeddings.detach().float().cpu().numpy()
        for row, sample in zip(rows, data_samples, strict=True):
            # numpy, and a copy: a row of a tensor would be sent with all of its batch
            self.results.append((row.copy(), int(sample["gt_label"]), sample.get("role", "query")))

    def compute_metrics(self, results: list[tuple[np.ndarray, int, str]]) -> dict[str, float]:
        """Scores of all examples, fractions in percent.

        Raises:
            ValueError: no example is a query.
        """
        given = {role: _embedded(results, role) for role in ROLES}
        if not len(given["query"][0]):
            raise ValueError(
                "RecallAtK found no query among the roles "
                f"{sorted({role for _, _, role in results})}: test with a data set of queries "
                f"too, or set role='query' of mixplug.RetrievalDataset."
            )
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


def _embedded(results: list[tuple[np.ndarray, int, str]], wanted: str) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) and classes (N,) of a role."""
    rows = [(row, label) for row, label, role in results if role == wanted]
    embeddings = np.stack([row for row, _ in rows]) if rows else np.empty((0, 0), np.float32)
    return torch.from_numpy(embeddings), torch.tensor([label for _, label in rows]).long()
