"""The pair losses of Table 4.1 against loops, and against pytorch-metric-learning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.reducers import MeanReducer
from reference import metric as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.nn.functional import softplus

import mixplug
from mixplug.losses.base import PairLoss
from mixplug.losses.pair import (
    NCA,
    BinomialDeviance,
    Contrastive,
    LiftedStructure,
    MultiSimilarity,
)

LOSSES: dict[str, tuple[Callable[..., PairLoss], dict[str, float]]] = {
    "Contrastive": (Contrastive, {"margin": 0.1}),
    "LiftedStructure": (LiftedStructure, {"margin": 0.7}),
    "BinomialDeviance": (BinomialDeviance, {"beta": 2.0, "gamma": 7.0, "margin": 0.3}),
    "MultiSimilarity": (MultiSimilarity, {"beta": 2.0, "gamma": 7.0, "margin": 0.3}),
    "NCA": (NCA, {}),
}
LABELS = torch.tensor([4, 0, 4, 1, 0, 4, 2])  # 1 and 2 have no positives
FULL = torch.tensor([4, 0, 4, 1, 0, 1, 4])


def batch(dtype: torch.dtype = torch.float32, size: int = 7, width: int = 5) -> Tensor:
    return torch.randn(size, width, dtype=dtype).mul_(2).requires_grad_()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_clean_loss_equals_the_loop(name: str, reduction: str, dtype: torch.dtype) -> None:
    cls, setting = LOSSES[name]
    e = batch(dtype)
    loss = cls(**setting, reduction=reduction)(e, LABELS)
    expected = naive.clean(
        naive.row(name, **setting), naive.examples(e, LABELS), reduction == "mean"
    )
    assert loss.dtype == dtype and loss.dim() == 0
    assert_same_gradients(loss, expected, [("embeddings", e)])


@pytest.mark.parametrize("name", LOSSES)
def test_embeddings_as_given_when_not_normalized(name: str, dtype: torch.dtype) -> None:
    cls, setting = LOSSES[name]
    e = torch.randn(7, 5, dtype=dtype).mul_(0.6).requires_grad_()
    v = e.double()
    world = naive.World(v, LABELS.tolist(), v, LABELS.tolist(), itself=True)
    expected = naive.clean(naive.row(name, **setting), world)
    loss = cls(**setting, normalize=False)
    assert_same_gradients(loss(e, LABELS), expected, [("embeddings", e)])
    loss(
        torch.cat([e[:6], torch.zeros(1, 5, dtype=dtype)]), LABELS
    )  # inner products with zero are defined


def test_defaults_of_the_thesis() -> None:
    e = batch(torch.float64)
    expected = naive.clean(naive.row("MultiSimilarity", 18, 75, 0.77), naive.examples(e, LABELS))
    assert_near(MultiSimilarity()(e, LABELS), expected)
    assert_near(mixplug.build("MultiSimilarity", kind="loss")(e, LABELS), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_one_class_has_no_negative_term(name: str, dtype: torch.dtype) -> None:
    cls, setting = LOSSES[name]
    e, labels = batch(dtype), torch.full((7,), 3)
    expected = naive.clean(naive.row(name, **setting), naive.examples(e, labels))
    loss = cls(**setting)(e, labels)
    assert bool(loss.isfinite())
    assert_same_gradients(loss, expected, [("embeddings", e)])


def test_order_of_the_batch_does_not_matter() -> None:
    e, order = batch(torch.float64), torch.randperm(7)
    for cls, setting in LOSSES.values():
        loss = cls(**setting)
        assert_near(loss(e[order], LABELS[order]), loss(e, LABELS))


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int64])
def test_any_integer_labels(kind: torch.dtype) -> None:
    e = batch()
    assert_near(NCA()(e, LABELS.to(kind)), NCA()(e, LABELS))


def test_large_labels_are_not_rounded() -> None:
    """2²⁴ and 2²⁴ + 1 are equal in float32."""
    e = batch()
    assert_near(NCA()(e, LABELS + 2**24), NCA()(e, LABELS))


@pytest.mark.parametrize("cls", [MultiSimilarity, BinomialDeviance])
def test_float32_agrees_with_float64_at_scale_75(cls: Callable[..., PairLoss]) -> None:
    direction = torch.randn(5, dtype=torch.float64)
    e = torch.stack([direction, direction, -direction, -direction, *torch.randn(3, 5).double()])
    results = []
    for dtype in (torch.float32, torch.float64):
        values = e.to(dtype).requires_grad_()
        loss = cls(beta=75.0, gamma=75.0, margin=0.77)(values, LABELS)
        results.append((loss, torch.autograd.grad(loss, values)[0]))
    (value, gradient), (exact, exact_gradient) = results
    assert_near(value, exact)
    assert_near(gradient, exact_gradient)


def test_losses_run_in_float32_under_autocast() -> None:
    e = batch()
    for cls, setting in LOSSES.values():
        loss = cls(**setting)
        with torch.autocast("cpu", torch.bfloat16):
            inside, half = loss(e, LABELS), loss(e.bfloat16(), LABELS)
        assert inside.dtype == half.dtype == torch.float32
        assert torch.equal(inside, loss(e, LABELS))
        assert torch.equal(half, loss(e.bfloat16().float(), LABELS))


def test_inputs_are_not_edited() -> None:
    e, labels = batch(), LABELS.clone()
    before = e.detach().clone()
    for cls, setting in LOSSES.values():
        cls(**setting)(e, labels).backward()
    assert torch.equal(e.detach(), before) and torch.equal(labels, LABELS)


# pytorch-metric-learning


def equals_pml(loss: Tensor, expected: Tensor, e: Tensor) -> None:
    assert_same_gradients(loss, expected, [("embeddings", e)])


@pytest.mark.parametrize("labels", [LABELS, FULL], ids=["singles", "full"])
def test_multi_similarity_equals_pml(labels: Tensor, dtype: torch.dtype) -> None:
    e = batch(dtype)
    expected = pml.MultiSimilarityLoss(alpha=18, beta=75, base=0.77)(e, labels)
    equals_pml(MultiSimilarity()(e, labels), expected, e)


@pytest.mark.parametrize("labels", [LABELS, FULL], ids=["singles", "full"])
def test_lifted_structure_equals_the_generalized_one_of_pml(
    labels: Tensor, dtype: torch.dtype
) -> None:
    e = batch(dtype)
    expected = pml.GeneralizedLiftedStructureLoss(
        neg_margin=0.7, pos_margin=0, distance=CosineSimilarity()
    )(e, labels)
    equals_pml(LiftedStructure(margin=0.7)(e, labels), expected, e)


def test_contrastive_equals_pml_except_for_means_and_a_constant(dtype: torch.dtype) -> None:
    """PML takes a mean over pairs, with 1 - s for -s; eq. 4.1 is a sum, averaged over anchors."""
    e = batch(dtype)
    loss = pml.ContrastiveLoss(
        pos_margin=1, neg_margin=0.1, distance=CosineSimilarity(), reducer=MeanReducer()
    )
    positives = int((LABELS[:, None] == LABELS).sum()) - 7
    negatives = 7 * 6 - positives
    both = loss(e, LABELS)
    only_positive = pml.ContrastiveLoss(
        pos_margin=1, neg_margin=9, distance=CosineSimilarity(), reducer=MeanReducer()
    )(e, LABELS)
    ours = (positives * (only_positive - 1) + negatives * (both - only_positive)) / 7
    equals_pml(Contrastive(margin=0.1)(e, LABELS), ours, e)


def test_nca_equals_pml_without_positives_in_the_denominator(dtype: torch.dtype) -> None:
    """-log(P / (P + N)) = log(1 + N / P): PML applies log(1 + eˣ) to the x of Table 4.1."""
    e = batch(dtype)
    expected = pml.NCALoss(softmax_scale=1, distance=CosineSimilarity())(e, FULL)
    row, world = naive.row("NCA"), naive.examples(e, FULL)
    per_anchor = []
    for a in range(7):
        elements = [(world.anchors[a] @ world.points[i], y) for i, y in world.others(a)]
        pulled, pushed = naive.terms(row, elements)
        per_anchor.append(pulled + pushed)
    equals_pml(expected, softplus(torch.stack(per_anchor)).mean(), e)
    assert_near(NCA()(e, FULL), torch.stack(per_anchor).mean())


# errors


@pytest.mark.parametrize("name", LOSSES)
def test_without_a_positive_pair_the_loss_is_zero_and_counted(
    name: str, recwarn: pytest.WarningsRecorder
) -> None:
    cls, setting = LOSSES[name]
    loss = cls(**setting)
    for size in (0, 1, 4):
        e = torch.randn(size, 3, requires_grad=True)
        value = loss(e, torch.arange(size))
        value.backward()
        assert float(value) == 0 and torch.equal(e.grad, torch.zeros_like(e))
        assert loss.skipped
    assert loss.batches_without_positives == 3
    (warning,) = (w for w in recwarn.list if "positive pair" in str(w.message))
    assert f"{name} needs a positive pair" in str(warning.message)
    assert "--samples-per-class" in str(warning.message)
    assert float(loss(torch.randn(4, 3), torch.tensor([0, 0, 1, 2])).abs()) >= 0
    assert not loss.skipped


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.ones(3, 2), torch.zeros(3), "integer labels, got torch.float32"),
        (torch.ones(3, 2), torch.zeros(3, dtype=torch.bool), "integer labels, got torch.bool"),
        (torch.ones(3, 2), torch.zeros(4, dtype=torch.int64), r"\(3, 2\) and \(4,\)"),
        (torch.ones(3, 2), torch.zeros(3, 1, dtype=torch.int64), r"\(3, 2\) and \(3, 1\)"),
        (torch.ones(3, 2, 1), torch.zeros(3, dtype=torch.int64), r"\(3, 2, 1\) and \(3,\)"),
    ],
)
def test_batches_of_wrong_shapes_or_dtypes_raise(
    embeddings: Tensor, labels: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=f"NCA needs.*{message}"):
        NCA()(embeddings, labels)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_embeddings_that_are_zero_or_not_finite_raise(value: float) -> None:
    e = batch().detach()
    e[2] = value
    e[5] = value
    message = r"NCA needs finite embeddings.*the embeddings of examples \[2, 5\] have the norms"
    with pytest.raises(ValueError, match=message):
        NCA()(e, LABELS)


@pytest.mark.parametrize(
    ("cls", "setting", "message"),
    [
        (NCA, {"reduction": "max"}, "NCA needs reduction in .*'sum', 'mean'.*got 'max'"),
        (MultiSimilarity, {"beta": 0}, "MultiSimilarity needs beta > 0, got 0"),
        (MultiSimilarity, {"gamma": -1.0}, "gamma > 0, got -1.0"),
        (BinomialDeviance, {"gamma": float("nan")}, "gamma > 0, got nan"),
        (BinomialDeviance, {"beta": -2}, "BinomialDeviance needs beta > 0, got -2"),
    ],
)
def test_settings_that_are_not_allowed(
    cls: Callable[..., PairLoss], setting: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**setting)
