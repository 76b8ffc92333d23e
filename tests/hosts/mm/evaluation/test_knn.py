"""k-nearest-neighbor accuracy as an evaluator of mmengine, against scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from sklearn.neighbors import KNeighborsClassifier

import mixplug.mm  # noqa: F401  registers
from mixplug.hosts.mm.evaluation.knn import KNNAccuracy

X, Y = torch.randn(50, 6), torch.randint(3, (50,))
Q, LABELS = torch.randn(30, 6), torch.randint(3, (30,))


def samples(embeddings: torch.Tensor, labels: torch.Tensor, role: str) -> list[dict]:
    return [
        {"pred_embedding": e, "gt_label": y[None], "role": role}
        for e, y in zip(embeddings, labels, strict=True)
    ]


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_it_is_what_scikit_learn_does(backend: str) -> None:
    init_default_scope("mmpretrain")
    evaluator = Evaluator([{"type": "mixplug.KNNAccuracy", "k": 5, "temperature": None,
                            "backend": backend}])  # fmt: skip
    evaluator.process(samples(X, Y, "train"))
    evaluator.process(samples(Q, LABELS, "query"))
    found = evaluator.evaluate(80)
    theirs = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(X.numpy(), Y.numpy())
    expected = 100 * theirs.score(Q.numpy(), LABELS.numpy())
    assert found == {"knn@5": pytest.approx(expected)} and 0 < expected < 100


def test_near_neighbors_weigh_more() -> None:
    """Two far ones of one class against a near one of another."""
    known = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    for temperature, expected in ((None, 0.0), (0.1, 100.0)):
        metric = KNNAccuracy(3, temperature)
        metric.process(None, samples(known, torch.tensor([1, 0, 0]), "train"))
        metric.process(None, samples(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), "query"))
        assert metric.compute_metrics(metric.results) == {"knn@3": expected}


def test_what_is_missing_is_said() -> None:
    metric = KNNAccuracy(20)
    metric.process(None, samples(X[:19], Y[:19], "train"))
    with pytest.raises(ValueError, match="KNNAccuracy found no query among the roles"):
        metric.compute_metrics(metric.results)
    metric.process(None, samples(Q, LABELS, "query"))
    with pytest.raises(ValueError, match=r"at least k=20 examples with the role 'train'.*got 19"):
        metric.compute_metrics(metric.results)
    with pytest.raises(ValueError, match="KNNAccuracy needs data samples with pred_embedding"):
        metric.process(None, [{"gt_label": Y[:1]}])
    for keys in ({"k": 0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="k >= 1 and temperature > 0 or None"):
            KNNAccuracy(**keys)
