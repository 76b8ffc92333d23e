"""Positivity of mixed embeddings against loops over eq. 4.17, and eq. 4.14 where it is exact."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional.positivity import acts_positive, expected_positive
from mixplug.metrics.positivity import Positivity

MILD = 5.0, 9.0, 0.3  # β, γ, m, so that float32 does not underflow
USUAL = 18.0, 75.0, 0.77


def slope(s: list[float], v: int, lam: float, settings: tuple[float, float, float]) -> float:
    """The derivative of eq. 4.13 in s(a, v), written out: eq. 4.17 with sums over all pairs."""
    beta, gamma, margin = settings
    pull = [lam * math.exp(-beta * (t - margin)) for t in s]
    push = [(1 - lam) * math.exp(gamma * (t - margin)) for t in s]
    return -pull[v] / (1 + sum(pull)) + push[v] / (1 + sum(push))


@pytest.mark.parametrize("lam", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_the_sign_is_that_of_the_written_derivative(lam: float, dtype: torch.dtype) -> None:
    s = torch.rand(6, 9, dtype=dtype) * 2 - 1
    is_pair = torch.rand(6, 9) < 0.7
    is_pair[0] = False  # an anchor without pairs
    found = acts_positive(s, is_pair, torch.tensor(lam), *MILD)
    assert not found[~is_pair].any()
    for a in range(6):
        columns = is_pair[a].nonzero()[:, 0].tolist()
        row = [float(s[a, v]) for v in columns]
        for place, v in enumerate(columns):
            assert bool(found[a, v]) == (slope(row, place, lam, MILD) <= 0)
    if 0 < lam < 1:
        assert found[is_pair].any() and not found[is_pair].all()  # both happen


@pytest.mark.parametrize("lam", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_eq_4_14_is_exact_for_a_single_pair(lam: float, dtype: torch.dtype) -> None:
    s = torch.linspace(-1, 1, 201, dtype=dtype)[:, None]
    is_pair = torch.ones_like(s, dtype=torch.bool)
    settings = torch.tensor(lam), *MILD
    measured = acts_positive(s, is_pair, *settings)
    assert torch.equal(measured, expected_positive(s, is_pair, *settings))
    if 0 < lam < 1:
        last = float(s[measured].max())
        assert last == pytest.approx(math.log(lam / (1 - lam)) / 14 + 0.3, abs=0.011)


def test_gradient_mode_and_inputs_are_not_modified() -> None:
    s = torch.rand(2, 3, requires_grad=True)
    with torch.no_grad():
        found = acts_positive(s, s > 0, torch.tensor(0.5), *MILD)
        assert not torch.is_grad_enabled()
    assert s.grad is None and not found.requires_grad


def naive_shares(batches: list[tuple[Tensor, Tensor]], lam: float) -> tuple[float, float, int]:
    """Both curves at one λ, by loops over anchors, positives and negatives."""
    beta, gamma, margin = USUAL
    measured = theory = pairs = 0
    threshold = -math.inf if lam == 0 else math.inf
    if 0 < lam < 1:
        threshold = math.log(lam / (1 - lam)) / (beta + gamma) + margin
    for e, y in batches:
        e = e.double() / e.double().norm(dim=1, keepdim=True)
        for a in range(len(e)):
            s = []
            for p in range(len(e)):
                for n in range(len(e)):
                    if p != a and y[p] == y[a] and y[n] != y[a]:
                        v = lam * e[p] + (1 - lam) * e[n]
                        s.append(float(e[a] @ v / v.norm()))
            measured += sum(slope(s, i, lam, USUAL) <= 0 for i in range(len(s)))
            theory += sum(t <= threshold for t in s)
            pairs += len(s)
    return measured / pairs, theory / pairs, pairs


@pytest.mark.parametrize("chunked", [False, True])
def test_curves_over_batches_equal_the_loops(
    chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunked:  # few anchors at a time
        monkeypatch.setattr("mixplug.metrics.positivity._PAIRS", 20)
    batches = [
        (torch.randn(7, 3) + 1, torch.tensor([0, 0, 1, 1, 1, 2, 3])),
        (torch.randn(5, 3) + 1, torch.tensor([4, 1, 4, 1, 4])),
    ]
    grid = (0.0, 0.3, 0.5, 0.7, 1.0)
    counted = Positivity(grid)
    for batch in batches:
        counted.update(*batch)
    measured, theory = counted.compute()
    for place, lam in enumerate(grid):
        loop = naive_shares(batches, lam)
        assert_close(float(measured[place]), loop[0], rtol=0, atol=1e-12)
        assert_close(float(theory[place]), loop[1], rtol=0, atol=1e-12)
        assert counted.pairs == loop[2]
    assert 0 < float(theory[2]) < 1 and not torch.equal(measured, theory)


def test_one_positive_and_one_negative_make_the_curves_equal() -> None:
    counted = Positivity(tuple(i / 10 for i in range(11)))
    for _ in range(20):
        counted.update(torch.randn(3, 2), torch.tensor([0, 0, 1]))
    measured, theory = counted.compute()
    assert torch.equal(measured, theory)
    assert (measured[0], measured[-1]) == (0, 1) and len(measured.unique()) > 4


def test_batches_without_pairs_and_wrong_grids_raise() -> None:
    counted = Positivity()
    counted.update(torch.randn(4, 2), torch.arange(4))
    with pytest.raises(ValueError, match="no anchor with a positive and a negative"):
        counted.compute()
    with pytest.raises(ValueError, match="needs a grid of λ"):
        Positivity((0.5, 1.5))
