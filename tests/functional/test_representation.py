"""Alignment, uniformity and utilization against loops over pairs, and limits known on paper."""

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
from mixplug.functional.representation import alignment, uniformity, utilization


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
    """A class larger than a block, and blocks with many classes."""
    e = torch.randn(60, 4, dtype=torch.float64)
    labels = torch.cat([torch.zeros(30), torch.randint(1, 12, (30,))]).long()[torch.randperm(60)]
    monkeypatch.setattr(representation, "_PAIRS", pairs)
    monkeypatch.setattr(representation, "_BLOCK", 16)
    expected = naive.alignment(e.tolist(), labels.tolist(), 1.5)
    assert_near(alignment(e, labels, 1.5), wanted(expected))


def test_both_ways_to_alignment_agree(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed form, and powers of distances, of which 2 never gets to see the second."""
    e, labels = torch.randn(50, 8, dtype=dtype), torch.randint(6, (50,))
    assert_near(alignment(e, labels, 2), alignment(e, labels, 2 + 1e-12))


def test_alignment_of_tight_classes_keeps_its_digits() -> None:
    """1e-3 apart at a distance of 100 from 0: sums of squares would leave nothing in float32."""
    labels = torch.tensor([0, 0, 1, 1])
    e = torch.tensor([[100.0, 0], [100.0, 2**-10], [-100.0, 0], [-100.0, 2**-10]])
    assert float(alignment(e, labels)) == pytest.approx(2**-20, rel=1e-5)
    assert float(alignment(e, labels, 1)) == pytest.approx(2**-10, rel=1e-5)


@pytest.mark.parametrize("t", [2, 0.3])
@pytest.mark.parametrize("block", [2048, 7, 13, 1])
def test_uniformity_equals_the_loop(
    t: float, block: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 = 5 x 7 + 5 = 3 x 13 + 1: the last block is short, or a single example."""
    monkeypatch.setattr(representation, "_BLOCK", block)
    e = F.normalize(torch.randn(40, 5, dtype=dtype))
    value = uniformity(e, t)
    assert value.dtype == dtype
    assert_near(value, wanted(naive.uniformity(e.tolist(), t)))


def test_uniformity_limits(dtype: torch.dtype) -> None:
    """One point: 0. Two antipodes: all pairs at distance^2 4. Far apart: not log 0."""
    assert float(uniformity(torch.ones(5, 3, dtype=dtype))) == pytest.approx(0, abs=1e-6)
    poles = torch.tensor([[1.0, 0], [-1.0, 0]], dtype=dtype)
    assert float(uniformity(poles)) == pytest.approx(-8)
    assert float(uniformity(poles, t=0.5)) == pytest.approx(-2)
    far = torch.tensor([[0.0, 0], [100.0, 0], [0, 300.0]], dtype=dtype)
    assert float(uniformity(far)) == pytest.approx(-20_000 - math.log(3), rel=1e-6)


def test_uniformity_does_not_depend_on_where_0_is() -> None:
    """At 1000 from 0, squares of 4e6 leave no digit of distances in float32."""
    e = torch.randn(30, 4) + 1000
    assert_near(uniformity(e), wanted(naive.uniformity(e.tolist(), 2)))


@pytest.mark.parametrize("block", [2048, 13])
def test_gradients_are_those_of_the_plain_formulas(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wang & Isola train with both: also where the last block is one example."""
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


def test_uniformity_never_holds_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representation, "_BLOCK", 100)
    e = torch.randn(2000, 4)
    assert peak_bytes(lambda: uniformity(e)) < 2000 * 2000 * 4 / 20


def test_alignment_never_holds_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small classes before one large: a block must not grow with the class where it ends."""
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
    """Queries 0 and 3 on a line, training set 1: squares 1 and 4. The other way round: 1."""
    queries, gallery = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0]])
    assert float(utilization(queries, gallery)) == 2.5
    assert float(utilization(gallery, queries)) == 1


def test_more_training_examples_utilize_no_less() -> None:
    queries, gallery = torch.randn(40, 3), torch.randn(50, 3)
    assert utilization(queries, gallery) < utilization(queries, gallery[:20])


E4 = torch.ones(4, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: alignment(E4, torch.arange(4)),
            r"alignment needs a positive pair, but the 4 labels are all different\.",
        ),
        (lambda: alignment(E4[:1], torch.zeros(1)), r"with B >= 2 and D >= 1, got \(1, 2\)\."),
        (lambda: alignment(E4, torch.zeros(3)), r"got \(4, 2\) and \(3,\)\."),
        (lambda: alignment(E4, torch.zeros(4), 0), r"alignment needs alpha > 0, got 0\."),
        (lambda: alignment(E4 / 0, torch.zeros(4)), r"alignment needs finite embeddings"),
        (lambda: uniformity(E4[:1]), r"uniformity needs embeddings \(B, D\) with B >= 2"),
        (lambda: uniformity(E4, -1), r"uniformity needs t > 0, got -1\."),
        (lambda: uniformity(E4 * float("nan")), r"uniformity needs finite embeddings"),
        (lambda: utilization(E4, E4[:0]), r"utilization needs gallery \(B, D\) with B >= 1"),
        (lambda: utilization(E4, torch.ones(3, 5)), r"of one width, got 2 and 5\."),
        (lambda: utilization(E4 * float("nan"), E4), r"utilization needs finite queries"),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
