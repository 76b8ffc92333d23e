"""Base of evaluators of embeddings: it collects embeddings, classes and roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

ROLES = ("query", "gallery", "train")
Rows = tuple[np.ndarray, int, str]


class EmbeddingMetric(BaseMetric):
    """Base of evaluators that get the embeddings, classes and roles of all examples at the end.

    A data sample has ``pred_embedding`` (D,) and ``gt_label``. Its meta key ``role`` is 'query',
    'gallery' or 'train', as mixplug.RetrievalDataset sets it; a sample without it is a query.
    """

    default_prefix = ""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep embedding, class and role of every example of a batch.

        Raises:
            ValueError: no embedding, or an unknown role.
        """
        for sample in data_samples:
            if "pred_embedding" not in sample or "gt_label" not in sample:
                raise ValueError(
                    f"{type(self).__name__} needs data samples with pred_embedding, as mixplug's "
                    f"models give them, and gt_label, got {sorted(sample)}."
                )
            if sample.get("role", "query") not in ROLES:
                raise ValueError(
                    f"{type(self).__name__} needs a role in {ROLES}, got {sample['role']!r}."
                )
        embeddings = torch.stack([sample["pred_embedding"] for sample in data_samples])
        rows = embeddings.detach().float().cpu().numpy()
        for row, sample in zip(rows, data_samples, strict=True):
            # A numpy copy: a row of a tensor would be sent to other ranks with its whole batch.
            self.results.append((row.copy(), int(sample["gt_label"]), sample.get("role", "query")))

    def by_role(self, results: list[Rows]) -> dict[str, tuple[Tensor, Tensor]]:
        """Embeddings (N, D) and classes (N,) of every role.

        Raises:
            ValueError: no example is a query.
        """
        given = {role: _embedded(results, role) for role in ROLES}
        if not len(given["query"][0]):
            raise ValueError(
                f"{type(self).__name__} found no query among the roles "
                f"{sorted({role for _, _, role in results})}: test with a data set of queries "
                f"too, or set role='query' of mixplug.RetrievalDataset."
            )
        return given


def _embedded(results: list[Rows], wanted: str) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) and classes (N,) of a role."""
    rows = [(row, label) for row, label, role in results if role == wanted]
    embeddings = np.stack([row for row, _ in rows]) if rows else np.empty((0, 0), np.float32)
    return torch.from_numpy(embeddings), torch.tensor([label for _, label in rows]).long()
