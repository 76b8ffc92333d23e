"""Losses of PyTorch taken apart, and everything else that may be a criterion."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor, nn
from torch.testing import assert_close

from mixplug.criterion import Criterion, as_criterion, cross_entropy, per_class
from mixplug.functional import soft_targets
from mixplug.mixed import Mixed

LABELS = torch.tensor([2, 0, 1, 1, 3])


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    logits = torch.randn(5, 4, dtype=dtype, requires_grad=True)
    return logits, torch.rand(5, 4, dtype=dtype).softmax(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_cross_entropy_of_soft_targets_is_torchs(smoothing: float, dtype: torch.dtype) -> None:
    logits, target = batch(dtype)
    host = nn.CrossEntropyLoss(label_smoothing=smoothing)
    assert_same_gradients(Mixed(logits, target).loss(host), host(logits, target), [("l", logits)])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_cross_entropy_of_indices_is_torchs(smoothing: float, dtype: torch.dtype) -> None:
    logits, _ = batch(dtype)
    host = nn.CrossEntropyLoss(label_smoothing=smoothing)
    loss = Mixed(logits, soft_targets(LABELS, 4)).loss(host)
    assert_same_gradients(loss, host(logits, LABELS), [("l", logits)])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_are_torchs(smoothing: float, dtype: torch.dtype) -> None:
    logits, target = batch(dtype)
    weight = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=dtype)
    host = nn.CrossEntropyLoss(weight, label_smoothing=smoothing)
    assert not as_criterion(host).is_cross_entropy  # the fused form knows no class weights
    assert_same_gradients(Mixed(logits, target).loss(host), host(logits, target), [("l", logits)])


@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_is_torchs(weighted: bool, dtype: torch.dtype) -> None:
    logits, target = batch(dtype)
    positive = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=dtype) if weighted else None
    classes = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=dtype) if weighted else None
    host = nn.BCEWithLogitsLoss(weight=classes, pos_weight=positive)
    assert_same_gradients(Mixed(logits, target).loss(host), host(logits, target), [("l", logits)])


def test_none_is_the_cross_entropy(dtype: torch.dtype) -> None:
    logits, target = batch(dtype)
    assert as_criterion() == cross_entropy()
    assert_same_gradients(
        Mixed(logits, target).loss(), F.cross_entropy(logits, target), [("l", logits)]
    )


def test_scale_and_smoothing_of_a_cross_entropy(dtype: torch.dtype) -> None:
    logits, target = batch(dtype)
    expected = 2.5 * F.cross_entropy(logits, target, label_smoothing=0.2)
    loss = Mixed(logits, target).loss(cross_entropy(smoothing=0.2, scale=2.5))
    assert_same_gradients(loss, expected, [("l", logits)])


def test_a_criterion_is_taken_as_it_is() -> None:
    criterion = Criterion(lambda logits, target: logits.sum(-1))
    assert as_criterion(criterion) is criterion


def test_any_callable_on_soft_targets(dtype: torch.dtype) -> None:
    """Term by term, or as the scalar mean."""
    logits, target = batch(dtype)

    def distance(logits: Tensor, target: Tensor) -> Tensor:
        return (logits - target).square().sum(-1)

    expected = distance(logits, target).mean()
    assert_same_gradients(Mixed(logits, target).loss(distance), expected, [("l", logits)])
    scalar = Mixed(logits, target).loss(lambda z, y: distance(z, y).mean())
    assert_same_gradients(scalar, expected, [("l", logits)])


def test_per_class_is_the_expected_mixture(dtype: torch.dtype) -> None:
    """A margin loss knows only indices: sum_k y_k loss(logits, k), by a loop."""
    logits, target = batch(dtype)
    target = target * torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=dtype)  # a class without weight
    asked: list[int] = []

    def margin(logits: Tensor, index: Tensor) -> Tensor:
        asked.extend(index.tolist())
        return F.multi_margin_loss(logits, index, reduction="none")

    total = torch.zeros((), dtype=dtype)
    for i in range(5):
        for k in (0, 2, 3):
            others = [torch.relu(1 - logits[i, k] + logits[i, j]) for j in range(4) if j != k]
            total = total + target[i, k] * sum(others) / 4 / 5
    loss = Mixed(logits, target).loss(per_class(margin))
    assert_same_gradients(loss, total, [("l", logits)])
    assert set(asked) == {0, 2, 3}


def test_per_class_on_indices_is_the_loss_itself(dtype: torch.dtype) -> None:
    logits, _ = batch(dtype)
    criterion = per_class(lambda z, k: F.cross_entropy(z, k, reduction="none"))
    loss = Mixed(logits, soft_targets(LABELS, 4, dtype)).loss(criterion)
    assert_near(loss, F.cross_entropy(logits, LABELS))


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.BCEWithLogitsLoss])
def test_other_reductions_are_refused(kind: type[nn.Module], reduction: str) -> None:
    message = (
        rf"Mixed losses are averaged over their terms, so {kind.__name__} needs "
        rf"reduction='mean', got '{reduction}'\."
    )
    with pytest.raises(ValueError, match=message):
        as_criterion(kind(reduction=reduction))


def test_what_is_not_callable_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be callable as loss\(logits, target\), got 'ce'\."):
        as_criterion("ce")


def test_a_subclass_with_a_forward_of_its_own_is_another_loss() -> None:
    class Hundred(nn.CrossEntropyLoss):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return 100 + super().forward(logits, target)

    logits, target = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    plain = nn.CrossEntropyLoss()(logits, target)
    assert_close(Mixed(logits, target).loss(Hundred()), 100 + plain)
    assert not as_criterion(Hundred()).is_cross_entropy


def test_the_functional_cross_entropy_is_known() -> None:
    assert as_criterion(F.cross_entropy).is_cross_entropy


def test_an_unknown_loss_must_not_sum() -> None:
    with pytest.raises(ValueError, match="needs reduction='mean', got 'sum'"):
        as_criterion(nn.MultiLabelSoftMarginLoss(reduction="sum"))


def test_a_loss_that_indexes_classes_says_so() -> None:
    def focal(logits: Tensor, target: Tensor) -> Tensor:
        return -logits.log_softmax(-1).gather(-1, target[:, None])

    mixed = Mixed(torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]])
    message = (
        r"focal cannot be mixed\. A mixed target is a row of .* use mixplug.criterion.per_class"
    )
    with pytest.raises(ValueError, match=message) as raised:
        mixed.loss(focal)
    assert isinstance(raised.value.__cause__, (RuntimeError, IndexError))


def test_losses_of_timm_are_known_without_its_adapter() -> None:
    """In a loop of one's own nothing else imports it."""
    code = """
        import torch
        from timm.loss import LabelSmoothingCrossEntropy
        from mixplug import Mixed

        logits, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
        loss = LabelSmoothingCrossEntropy(0.3)
        print(float(Mixed(logits, torch.eye(3)[y]).loss(loss) - loss(logits, y)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert abs(float(done.stdout)) < 1e-6, done.stderr
