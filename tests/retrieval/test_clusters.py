"""k-means with faiss and with scikit-learn."""

from __future__ import annotations

import sys

import pytest
import torch
from reference import neighbors as naive

from mixplug.retrieval import kmeans_clusters


@pytest.mark.parametrize("library", ["faiss", "scikit-learn"])
def test_clusters_depend_on_the_data_and_on_the_seed(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library != "faiss":
        monkeypatch.setitem(sys.modules, "faiss", None)
    truth = torch.arange(2).repeat(60)
    e = torch.eye(3)[truth] * 50 + torch.randn(120, 3)
    found = kmeans_clusters(e, 2, seed=1)
    assert found.dtype == torch.int64 and found.shape == (120,)
    assert naive.nmi(truth.tolist(), found.tolist()) == pytest.approx(1)
    noise = torch.randn(200, 5)
    assert torch.equal(kmeans_clusters(noise, 20, seed=3), kmeans_clusters(noise, 20, seed=3))
    assert not torch.equal(kmeans_clusters(noise, 20, seed=3), kmeans_clusters(noise, 20, seed=4))


@pytest.mark.parametrize(
    ("embeddings", "k", "message"),
    [
        (torch.ones(4, 2), 5, r"k between 1 and 4, the number of embeddings, got 5\."),
        (torch.ones(4, 2) / 0, 2, r"kmeans_clusters needs finite embeddings"),
    ],
)
def test_errors(embeddings: torch.Tensor, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmeans_clusters(embeddings, k)
