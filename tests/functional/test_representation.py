"""Alignment, uniformity, utilization and intrusion distance by loops over pairs and by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from reference import neighbors as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor

from mixplug.bench.measure import peak_bytes
from mixplug.functional import representation
from mixplug.functional.representation import (
    alignment,
    intrusion_distance,
    uniformity,
    utilization,
)


def wanted(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [2, 1, 3, 0.5])
@pytest.mark.parametrize(("examples", "classes"), [(40, 5), (25, 20), (9, 1)])
def test_alignment_equals_the_loop(
    examples: int, classes: int, alpha: float, dtype: torch.dtype
) -> None:
    e = torch.randn(examples, 4, dtype=dtype)
    labels = torch.randint(classes, (examples,)) * 7 - 3
    labels[0] = labels[1]
    value = alignment(e, labels, alpha)
    assert value.dtype == dtype
    assert_near(value, wanted(naive.alignment(e.tolist(), labels.tolist(), alpha)))


@pytest.mark.parametrize("pairs", [1, 40, 300])
def test_alignment_in_blocks_is_the_same(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One class is larger than a block, and some blocks contain many classes."""
    e = torch.randn(60, 4, dtype=torch.float64)
    labels = torch.cat([torch.zeros(30), torch.randint(1, 12, (30,))]).long()[torch.randperm(60)]
    monkeypatch.setattr(representation, "_PAIRS", pairs)
    monkeypatch.setattr(representation, "_BLOCK", 16)
    expected = naive.alignment(e.tolist(), labels.tolist(), 1.5)
    assert_near(alignment(e, labels, 1.5), wanted(expected))


def test_both_ways_to_alignment_agree(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed form, which alpha = 2 uses, and powers of distances, which other values use."""
    e, labels = torch.randn(50, 8, dtype=dtype), torch.randint(6, (50,))
    assert_near(alignment(e, labels, 2), alignment(e, labels, 2 + 1e-12))


def test_alignment_of_tight_classes_keeps_its_digits() -> None:
    """Distances are 1e-3, the norm is 100: a difference of squares has no digits in float32."""
    labels = torch.tensor([0, 0, 1, 1])
    e = torch.tensor([[100.0, 0], [100.0, 2**-10], [-100.0, 0], [-100.0, 2**-10]])
    assert float(alignment(e, labels)) == pytest.approx(2**-20, rel=1e-5)
    assert float(alignment(e, labels, 1)) == pytest.approx(2**-10, rel=1e-5)


@pytest.mark.parametrize("alpha", [2, 1])
def test_bounds_of_alignment_and_uniformity_on_the_sphere(alpha: float) -> None:
    """docs/errata.md: alignment <= 2 n / (n - 1) and uniformity >= -4 n / (n - 1).

    A regular simplex, in which all distances are equal and maximal, reaches both bounds.
    """
    n = 20
    corners = torch.eye(n, dtype=torch.float64)
    one = torch.zeros(n, dtype=torch.long)
    simplex = F.normalize(corners - corners.mean(0))
    bound = (2 * n / (n - 1)) ** (alpha / 2)
    assert float(alignment(simplex, one, alpha)) == pytest.approx(bound)
    assert float(uniformity(simplex)) == pytest.approx(-4 * n / (n - 1))
    for width in (1, 2, 50):
        e = F.normalize(torch.randn(n, width, dtype=torch.float64))
        assert alignment(e, one, alpha) <= bound + 1e-12
        assert uniformity(e) >= -4 * n / (n - 1) - 1e-12


@pytest.mark.parametrize("t", [2, 0.3])
@pytest.mark.parametrize("block", [2048, 7, 13, 1])
def test_uniformity_equals_the_loop(
    t: float, block: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 = 5 x 7 + 5 = 3 x 13 + 1: the last block is shorter, or has a single example."""
    monkeypatch.setattr(representation, "_BLOCK", block)
    e = F.normalize(torch.randn(40, 5, dtype=dtype))
    value = uniformity(e, t)
    assert value.dtype == dtype
    assert_near(value, wanted(naive.uniformity(e.tolist(), t)))


def test_uniformity_limits(dtype: torch.dtype) -> None:
    """Equal points give 0, two antipodes have squared distance 4, distant points not log 0."""
    assert float(uniformity(torch.ones(5, 3, dtype=dtype))) == pytest.approx(0, abs=1e-6)
    poles = torch.tensor([[1.0, 0], [-1.0, 0]], dtype=dtype)
    assert float(uniformity(poles)) == pytest.approx(-8)
    assert float(uniformity(poles, t=0.5)) == pytest.approx(-2)
    far = torch.tensor([[0.0, 0], [100.0, 0], [0, 300.0]], dtype=dtype)
    assert float(uniformity(far)) == pytest.approx(-20_000 - math.log(3), rel=1e-6)


def test_uniformity_is_invariant_to_translation() -> None:
    """Norms are 1000, so squares of 4e6 leave no digits for the distances in float32."""
    e = torch.randn(30, 4) + 1000
    assert_near(uniformity(e), wanted(naive.uniformity(e.tolist(), 2)))


@pytest.mark.parametrize("block", [2048, 13])
def test_gradients_are_those_of_the_plain_formulas(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wang & Isola train with both. The last block may have one example."""
    monkeypatch.setattr(representation, "_BLOCK", block)
    e = torch.randn(40, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(6, (40,))
    others = ~torch.eye(40, dtype=torch.bool)
    distance = (e[:, None] - e).square().sum(-1)
    plain = (-2 * distance)[others].exp().mean().log()
    assert_same_gradients(uniformity(e), plain, [("e", e)])
    plain = distance[others & (labels[:, None] == labels)]
    assert_same_gradients(alignment(e, labels), plain.mean(), [("e", e)])
    plain = plain.pow(1.5).mean()
    assert_same_gradients(alignment(e, labels, 3), plain, [("e", e)])


def test_uniformity_never_stores_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representation, "_BLOCK", 100)
    e = torch.randn(2000, 4)
    assert peak_bytes(lambda: uniformity(e)) < 2000 * 2000 * 4 / 20


def test_alignment_never_stores_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small classes before a large one: a block must not grow with the class at its end."""
    monkeypatch.setattr(representation, "_PAIRS", 20_000)
    e = torch.randn(2000, 4)
    labels = torch.cat([torch.arange(200).repeat_interleave(2), torch.full((1600,), 500)])
    assert peak_bytes(lambda: alignment(e, labels)) < 2000 * 2000 * 4 / 20
    assert peak_bytes(lambda: alignment(e, labels, 1)) < 2000 * 2000 * 4 / 20


def test_utilization_equals_the_loop(dtype: torch.dtype) -> None:
    queries, gallery = torch.randn(30, 5, dtype=dtype), torch.randn(45, 5, dtype=dtype)
    value = utilization(queries, gallery)
    assert value.dtype == dtype
    assert_near(value, wanted(naive.utilization(queries.tolist(), gallery.tolist())))


def test_utilization_of_a_set_by_itself_is_exactly_0() -> None:
    e = torch.randn(3000, 64)
    assert float(utilization(e, e)) == 0


def test_utilization_by_hand_and_its_operands() -> None:
    """Queries 0 and 3 on a line, training set 1: squares are 1 and 4. With swapped sets: 1."""
    queries, gallery = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0]])
    assert float(utilization(queries, gallery)) == 2.5
    assert float(utilization(gallery, queries)) == 1


def test_more_training_examples_never_increase_utilization() -> None:
    queries, gallery = torch.randn(40, 3), torch.randn(50, 3)
    assert utilization(queries, gallery) < utilization(queries, gallery[:20])


def mixtures(m: int, b: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Mixed embeddings, weights with many zeros, clean embeddings, labels out of order."""
    clean = torch.randn(b, 4, dtype=dtype)
    weights = torch.rand(m, b, dtype=dtype) * (torch.rand(m, b) < 2 / b)
    weights[torch.arange(m), torch.randint(b, (m,))] = 1
    weights = weights / weights.sum(1, keepdim=True)
    return weights @ clean, weights, clean, torch.randint(classes, (b,)) * 5 - 3


@pytest.mark.parametrize("pairs", [1 << 22, 60, 1])
@pytest.mark.parametrize(("m", "b", "classes"), [(30, 12, 6), (9, 20, 2), (40, 5, 3)])
def test_intrusion_equals_the_loop(
    m: int, b: int, classes: int, pairs: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some mixtures contain all of a few classes; the mean excludes them."""
    monkeypatch.setattr(representation, "_PAIRS", pairs)
    given = mixtures(m, b, classes, dtype)
    value = intrusion_distance(*given)
    assert value.dtype == dtype
    expected, counted = naive.intrusion_distance(*(t.tolist() for t in given))
    assert counted < m or classes > 2
    assert_near(value, wanted(expected))


def test_intrusion_by_hand(dtype: torch.dtype) -> None:
    """On a line: class 0 at 0 and 2.5, class 1 at 4, class 2 at 10.

    The first mixture, at 3, contains the examples at 0 and 4. The example at 2.5 is nearest, but
    its class 0 is in the mixture, so the distance is 7^2, to class 2. The second, at 9, mixes
    classes 1 and 2, so the distance to class 0 is 6.5. The last contains all classes.
    """
    clean = torch.tensor([[0.0], [2.5], [4.0], [10.0]], dtype=dtype)
    labels = torch.tensor([0, 0, 1, 2])
    weights = torch.tensor(
        [[0.25, 0, 0.75, 0], [0, 0, 1 / 6, 5 / 6], [0.25, 0, 0.25, 0.5]], dtype=dtype
    )
    value = intrusion_distance(weights @ clean, weights, clean, labels)
    assert float(value) == pytest.approx((49 + 6.5**2) / 2)
    assert float(intrusion_distance(clean[2:3], weights[1:2], clean, labels)) == 1.5**2


def test_a_mixture_on_another_class_intrudes_by_exactly_0() -> None:
    """Far from 0, squares in float32 would make the third example as near as the fourth."""
    clean = torch.tensor([[1000.0, 1], [1002.0, 1], [1001.0625, 1], [1001.0, 1]])
    weights = torch.tensor([[0.5, 0.5, 0, 0]])
    assert float(intrusion_distance(weights @ clean, weights, clean, torch.arange(4))) == 0


def test_only_whether_weights_are_0_matters() -> None:
    mixed, weights, clean, labels = mixtures(20, 10, 6, torch.float64)
    value = intrusion_distance(mixed, weights, clean, labels)
    assert value == intrusion_distance(mixed, (weights > 0).float(), clean, labels)
    tiny = torch.where(weights > 0, 1e-30, 0.0)
    assert value == intrusion_distance(mixed, tiny, clean, labels)


def test_more_clean_classes_never_increase_the_intrusion_distance() -> None:
    """Also for classes outside of the batch, if each mixture has all classes of the batch."""
    clean, batch = torch.randn(30, 3), 6
    labels = torch.arange(30) % 10
    weights = torch.rand(8, batch)
    weights = weights / weights.sum(1, keepdim=True)
    mixed = weights @ clean[:batch]
    with pytest.raises(ValueError, match=r"all 6 classes have weight in all 8 mixed embeddings"):
        intrusion_distance(mixed, weights, clean[:batch], labels[:batch])
    values = []
    for known in (10, 20, 30):
        padded = torch.cat([weights, torch.zeros(8, known - batch)], 1)
        values.append(float(intrusion_distance(mixed, padded, clean[:known], labels[:known])))
    assert values == sorted(values, reverse=True) and values[0] > values[2]


def test_gradient_of_intrusion_is_that_of_the_nearest() -> None:
    mixed, weights, clean, labels = mixtures(15, 8, 5, torch.float64)
    mixed, clean = mixed.detach().requires_grad_(), clean.requires_grad_()
    others = ((weights > 0).double() @ (labels[:, None] == labels).double()) == 0
    squares = (mixed[:, None] - clean).square().sum(-1).masked_fill(~others, torch.inf)
    plain = squares.amin(1)[others.any(1)].mean()
    value = intrusion_distance(mixed, weights, clean, labels)
    assert_same_gradients(value, plain, [("mixed", mixed), ("clean", clean)])


def test_intrusion_never_stores_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representation, "_PAIRS", 20_000)
    mixed, clean = torch.randn(1000, 4), torch.randn(1000, 4)
    weights, labels = torch.eye(1000), torch.arange(1000) % 20
    peak = peak_bytes(lambda: intrusion_distance(mixed, weights, clean, labels))
    assert peak < 1000 * 1000 * 4 / 5


E4 = torch.ones(4, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: alignment(E4, torch.arange(4)),
            r"at least two examples of the same class, but the 4 labels are all different\.",
        ),
        (lambda: alignment(E4[:1], torch.zeros(1)), r"with B >= 2 and D >= 1, got \(1, 2\)\."),
        (lambda: alignment(E4, torch.zeros(3)), r"got \(4, 2\) and \(3,\)\."),
        (lambda: alignment(E4, torch.zeros(4), 0), r"alignment needs alpha > 0, got 0\."),
        (lambda: alignment(E4 / 0, torch.zeros(4)), r"alignment needs finite embeddings"),
        (lambda: uniformity(E4[:1]), r"uniformity needs embeddings \(B, D\) with B >= 2"),
        (lambda: uniformity(E4, -1), r"uniformity needs t > 0, got -1\."),
        (lambda: uniformity(E4 * float("nan")), r"uniformity needs finite embeddings"),
        (lambda: utilization(E4, E4[:0]), r"utilization needs gallery \(B, D\) with B >= 1"),
        (lambda: utilization(E4, torch.ones(3, 5)), r"of the same width, got 2 and 5\."),
        (lambda: utilization(E4 * float("nan"), E4), r"utilization needs finite queries"),
        (
            lambda: intrusion_distance(E4, E4, E4, torch.arange(4)),
            r"got \(4, 2\), \(4, 2\), \(4, 2\) and \(4,\)\.",
        ),
        (lambda: intrusion_distance(E4, torch.eye(4), E4, torch.arange(3)), r"and \(3,\)\."),
        (
            lambda: intrusion_distance(E4[:, :1], torch.eye(4), E4, torch.arange(4)),
            r"intrusion_distance needs mixed \(M, D\), .* got \(4, 1\)",
        ),
        (
            lambda: intrusion_distance(E4, -torch.eye(4), E4, torch.arange(4)),
            r"intrusion_distance needs weights >= 0, got -1\.",
        ),
        (
            lambda: intrusion_distance(E4, torch.eye(4), E4, torch.zeros(4)),
            r"but all 1 classes have weight in all 4 mixed embeddings \(as with m = b\)\.",
        ),
        (
            lambda: intrusion_distance(E4 / 0, torch.eye(4), E4, torch.arange(4)),
            r"intrusion_distance needs finite mixed",
        ),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
