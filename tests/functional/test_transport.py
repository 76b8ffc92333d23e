"""Entropic transport plans against a loop over floats, and in known limits."""

from __future__ import annotations

import math

import pytest
import torch
from reference.transport import sinkhorn as naive
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional import sinkhorn


def naive_batch(cost: Tensor, eps: float, iters: int, axis: str = "row") -> Tensor:
    return torch.stack([naive(item, eps, iters, axis) for item in cost])


def assignment_error(plan: Tensor, expected: Tensor) -> float:
    """Largest error of N M P; its entries are 1 on average."""
    return float((plan.double() - expected).abs().max()) * plan.shape[-1] * plan.shape[-2]


@pytest.mark.parametrize(("n", "m"), [(4, 4), (4, 9), (9, 4), (1, 5), (5, 1), (1, 1)])
def test_both_marginals(n: int, m: int, dtype: torch.dtype) -> None:
    plan = sinkhorn(torch.rand(2, n, m, dtype=dtype), eps=0.1, iters=500)
    assert_close(plan.sum(-1), torch.full((2, n), 1 / n, dtype=dtype))
    assert_close(plan.sum(-2), torch.full((2, m), 1 / m, dtype=dtype))


@pytest.mark.parametrize("iters", [1, 2, 3, 40])
@pytest.mark.parametrize(("n", "m"), [(3, 5), (6, 2), (1, 4), (4, 1), (1, 1), (7, 7)])
def test_equals_the_loop_after_any_number_of_iterations(
    n: int, m: int, iters: int, dtype: torch.dtype
) -> None:
    cost = torch.rand(2, n, m, dtype=dtype) * 3
    plan = sinkhorn(cost, 0.2, iters)
    assert plan.dtype == dtype
    assert assignment_error(plan, naive_batch(cost, 0.2, iters)) < (
        2e-5 if dtype == torch.float32 else 1e-11
    )


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 12), (16, 16), (36, 9), (49, 49)])
def test_equals_the_loop_at_the_default_setting_for_costs_up_to_500(
    n: int, m: int, dtype: torch.dtype
) -> None:
    cost = torch.rand(n, m, dtype=dtype) * 500
    plan = sinkhorn(cost)
    error = float((plan.double() - naive(cost, 0.1, 100)).abs().max()) * n
    assert error < (1e-5 if dtype == torch.float32 else 1e-10)


HARD = {
    "separable": lambda i, j: 300 * i + 200 * j,  # the plan is uniform
    "one row far from all": lambda i, j: 500.0 * (i == 0),
    "one column far from all": lambda i, j: 500.0 * (j == 0),
    "triangle": lambda i, j: 250.0 * max(j - i, 0) + i * j,
    "band": lambda i, j: 170.0 * (i - j) ** 2,
    "corner": lambda i, j: 0.0 if i == 0 or j == 0 else 400.0 + i - j,
    "competition for one column": lambda i, j: 100.0 * j + (0.3 * i if j == 0 else 0.0),
    "multiples": lambda i, j: 500.0 * ((7 * i + 3 * j) % 5) / 4,
}


@pytest.mark.parametrize("iters", [1, 2, 17, 100])
@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 6), (7, 2)])
@pytest.mark.parametrize("name", HARD)
def test_mass_that_underflows_in_float32_is_not_lost(
    name: str, n: int, m: int, iters: int, dtype: torch.dtype
) -> None:
    """exp(-cost / eps) is as small as exp(-5000), but float32 underflows at exp(-104)."""
    cost = torch.tensor([[float(HARD[name](i, j)) for j in range(m)] for i in range(n)])
    cost = cost.to(dtype)
    plan = sinkhorn(cost, eps=0.1, iters=iters)
    assert assignment_error(plan, naive(cost, 0.1, iters)) < (
        2e-4 if dtype == torch.float32 else 1e-9
    )


def test_a_separable_cost_gives_the_uniform_plan() -> None:
    cost = 400 * torch.rand(5, 1, dtype=torch.float64) + 400 * torch.rand(1, 3, dtype=torch.float64)
    assert_close(sinkhorn(cost, 0.1, 2), torch.full((5, 3), 1 / 15, dtype=torch.float64))


def test_large_eps_gives_the_uniform_plan(dtype: torch.dtype) -> None:
    plan = sinkhorn(torch.rand(1, 3, 5, dtype=dtype), eps=1e6, iters=1)
    assert_close(plan, torch.full((1, 3, 5), 1 / 15, dtype=dtype))


def test_small_eps_recovers_a_permutation(dtype: torch.dtype) -> None:
    perm = torch.eye(6, dtype=dtype)[torch.tensor([3, 0, 5, 1, 2, 4])]  # not its own inverse
    assert_close(sinkhorn(1 - perm[None], eps=0.01, iters=50)[0] * 6, perm)


def test_rows_come_before_columns(dtype: torch.dtype) -> None:
    """After one iteration, the columns are exact and the rows are not; values by hand."""
    cost = torch.tensor([[0.0, math.log(2)], [0.0, math.log(6)]], dtype=dtype)
    # exp(-cost) = [1, 1/2], [1, 1/6]; rows to 1/2: [1/3, 1/6], [3/7, 1/14]; columns sum to 16/21
    # and 5/21, and to 1/2 afterwards: [7/32, 7/20], [9/32, 3/20].
    expected = torch.tensor([[7 / 32, 7 / 20], [9 / 32, 3 / 20]], dtype=dtype)
    assert_close(sinkhorn(cost, eps=1.0, iters=1), expected)


@pytest.mark.parametrize(("axis", "dim"), [("row", -1), ("column", -2)])
def test_no_iterations_normalize_one_axis_once(axis: str, dim: int, dtype: torch.dtype) -> None:
    cost = torch.rand(2, 3, 5, dtype=dtype)
    plan = sinkhorn(cost, 0.3, 0, axis)
    assert_close(plan.double(), naive_batch(cost, 0.3, 0, axis), rtol=1e-5, atol=1e-7)
    assert_close(
        plan.sum(dim),
        torch.full((2, 3 if dim == -1 else 5), 1 / (3 if dim == -1 else 5), dtype=dtype),
    )
    other = plan.sum(-3 - dim)
    assert float(other.max() - other.min()) > 1e-3  # only that axis


def test_axis_matters_only_without_iterations() -> None:
    cost = torch.rand(3, 5)
    assert torch.equal(sinkhorn(cost, 0.1, 7, "row"), sinkhorn(cost, 0.1, 7, "column"))
    assert sinkhorn(cost, 0.1, 0).equal(sinkhorn(cost, 0.1, 0, "row"))


def test_tolerance_stops_at_an_iterate_whose_rows_are_within_it() -> None:
    cost = torch.rand(2, 4, 6, dtype=torch.float64) * 4
    exact, loose = sinkhorn(cost, 0.2, 2000), sinkhorn(cost, 0.2, 2000, tol=1e-3)
    assert float((loose.sum(-1) - 1 / 4).abs().max()) <= 1e-3
    assert (
        float((sinkhorn(cost, 0.2, 1).sum(-1) - 1 / 4).abs().max()) > 1e-3
    )  # it took more than one iteration
    assert float((exact.sum(-1) - 1 / 4).abs().max()) < 1e-9  # further iterations do help
    assert float((loose - exact).abs().max()) > 1e-6  # and it stopped before convergence
    distance = [float((loose - sinkhorn(cost, 0.2, k)).abs().max()) for k in range(1, 150)]
    assert min(distance) < 1e-12


def test_tolerance_that_is_never_met_changes_nothing(dtype: torch.dtype) -> None:
    cost = torch.rand(2, 4, 6, dtype=dtype) * 4
    assert torch.equal(sinkhorn(cost, 0.1, 30, tol=0.0), sinkhorn(cost, 0.1, 30))


def test_tolerance_that_is_met_at_once_gives_one_iteration() -> None:
    cost = torch.rand(4, 6)
    assert torch.equal(sinkhorn(cost, 0.1, 100, tol=1.0), sinkhorn(cost, 0.1, 1))


def test_leading_dimensions_are_independent_items(dtype: torch.dtype) -> None:
    cost = torch.rand(2, 3, 4, 5, dtype=dtype)
    plan = sinkhorn(cost, 0.1, 20)
    for i in range(2):
        for j in range(3):
            assert_close(plan[i, j], sinkhorn(cost[i, j], 0.1, 20))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_costs_are_computed_in_float32(half: torch.dtype) -> None:
    cost = (torch.rand(3, 5) * 20).to(half)
    plan = sinkhorn(cost, 0.1, 50)
    assert plan.dtype == torch.float32
    assert torch.equal(plan, sinkhorn(cost.float(), 0.1, 50))


@pytest.mark.parametrize("iters", [0, 50])
def test_autocast_does_not_reach_the_iterations(iters: int) -> None:
    cost = torch.rand(3, 5) * 20
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plan = sinkhorn(cost, 0.1, iters)
    assert plan.dtype == torch.float32
    assert torch.equal(plan, sinkhorn(cost, 0.1, iters))


@pytest.mark.parametrize("iters", [0, 1, 30])
def test_the_cost_is_left_as_it_was(iters: int) -> None:
    cost = torch.rand(2, 3, 5)
    before = cost.clone()
    with torch.no_grad():
        without = sinkhorn(cost, 0.1, iters)
    assert torch.equal(cost, before)
    assert not without.requires_grad
    assert torch.equal(sinkhorn(cost, 0.1, iters), without)


@pytest.mark.parametrize("iters", [1, 2, 60])
def test_gradient_equals_finite_differences_of_the_loop(iters: int) -> None:
    cost = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    direction = torch.rand(3, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((sinkhorn(cost, 0.3, iters) * direction).sum(), cost)
    for i in range(3):
        for j in range(4):
            step = torch.zeros(3, 4, dtype=torch.float64)
            step[i, j] = 1e-5
            up, down = (naive(cost.detach() + sign * step, 0.3, iters) for sign in (1, -1))
            slope = float(((up - down) * direction).sum()) / 2e-5
            assert float(gradient[i, j]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, r"sinkhorn needs eps > 0, got eps=0\.0\."),
        ({"eps": -1.0}, r"sinkhorn needs eps > 0, got eps=-1\.0\."),
        ({"eps": math.nan}, r"sinkhorn needs eps > 0, got eps=nan\."),
        ({"iters": -1}, r"sinkhorn needs iters >= 0, got iters=-1\."),
        ({"axis": "rows"}, r"sinkhorn needs axis 'row' or 'column', got 'rows'\."),
    ],
)
def test_settings_out_of_range_raise(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinkhorn(torch.rand(3, 4), **options)


@pytest.mark.parametrize("shape", [(4,), (0, 3), (2, 3, 0)])
def test_costs_that_are_not_matrices_raise(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs cost \(\.\.\., N, M\) with N, M >= 1, got"):
        sinkhorn(torch.rand(shape))
