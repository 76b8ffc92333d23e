"""Votes of the k-NN classifier against a loop over neighbors and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from mixplug.functional.neighbors import knn_accuracy, knn_votes


@pytest.mark.parametrize("temperature", [0.07, 1.0, None])
def test_votes_one_by_one(temperature: float | None, dtype: torch.dtype) -> None:
    s = torch.rand(5, 4, dtype=dtype) * 2 - 1
    y = torch.randint(3, (5, 4))
    found = knn_votes(s, y, 3, temperature)
    assert found.dtype == dtype
    for query in range(5):
        for label in range(3):
            votes = 0.0
            for value, neighbor in zip(s[query].tolist(), y[query].tolist(), strict=True):
                weight = 1.0 if temperature is None else math.exp(value / temperature)
                votes += weight if neighbor == label else 0.0
            largest = max(s[query].tolist())
            scale = 1.0 if temperature is None else math.exp(largest / temperature)
            assert float(found[query, label]) == pytest.approx(votes / scale, rel=1e-4, abs=1e-6)


def test_votes_equal_scikit_learn() -> None:
    """scikit-learn with weights e^(s/τ) of the cosine s; its cosine distance is 1 - s."""
    x, y = torch.randn(60, 6, dtype=torch.float64), torch.randint(4, (60,))
    q, labels = torch.randn(40, 6, dtype=torch.float64), torch.randint(4, (40,))
    theirs = KNeighborsClassifier(
        7, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    ).fit(x.numpy(), y.numpy())
    unit = torch.nn.functional.normalize
    s, ids = (unit(q) @ unit(x).T).topk(7)
    votes = knn_votes(s, y[ids], 4)
    assert votes.argmax(1).tolist() == theirs.predict(q.numpy()).tolist()
    assert knn_accuracy(votes, labels) == pytest.approx(theirs.score(q.numpy(), labels.numpy()))


def test_extreme_similarities_and_ties() -> None:
    votes = knn_votes(torch.tensor([[500.0, -500.0]]), torch.tensor([[2, 0]]), 3, 0.01)
    assert votes.tolist() == [[0.0, 0.0, 1.0]]
    tied = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    assert knn_accuracy(tied, torch.tensor([1, 0])) == 1
    assert knn_accuracy(tied, torch.tensor([2, 2])) == 0


@pytest.mark.parametrize(
    ("s", "y", "temperature", "message"),
    [
        (torch.rand(3, 2), torch.zeros(3, 1).long(), 1.0, r"\(Q, k\), got \(3, 2\) and \(3, 1\)"),
        (torch.rand(1, 2), torch.tensor([[0, 3]]), 1.0, r"labels in \[0, 3\), got 0 to 3"),
        (torch.rand(1, 2), torch.tensor([[0, -1]]), 1.0, r"got -1 to 0"),
        (torch.rand(1, 2), torch.tensor([[0, 1]]), 0.0, r"temperature > 0 or None, got 0.0"),
    ],
)
def test_bad_input(s, y, temperature: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        knn_votes(s, y, 3, temperature)


def test_no_query() -> None:
    with pytest.raises(ValueError, match=r"Q >= 1, got \(0, 3\) and \(0,\)"):
        knn_accuracy(torch.rand(0, 3), torch.zeros(0).long())
