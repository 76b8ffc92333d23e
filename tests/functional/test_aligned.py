"""Mixing and alignment against loops over positions and channels, and in known cases."""

from __future__ import annotations

import pytest
import torch
from reference import aligned as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional import align, assignment, correspondences, mix, squared_distances


def maps(dtype: torch.dtype, *shape: int) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    return a.requires_grad_(), b.requires_grad_()


def naive_batch(a: Tensor, b: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    pairs = [naive.align(one, other, *args) for one, other in zip(a, b, strict=True)]
    return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_a_number_weighs_the_first_operand(lam: float, dtype: torch.dtype) -> None:
    x, y = maps(dtype, 3, 2, 4, 5)
    mixed = mix(x, y, lam)
    for i in range(3):
        assert_near(mixed[i], naive.mix(x[i], y[i], lam))
    assert torch.equal(mix(x, y, 1.0), x) and torch.equal(mix(x, y, 0.0), y)
    grad_x, grad_y = torch.autograd.grad(mixed.sum(), (x, y))
    assert_close(grad_x, torch.full_like(x, lam))
    assert_close(grad_y, torch.full_like(x, 1 - lam))


@pytest.mark.parametrize("shape", [(3,), (3, 7), (3, 2, 4, 5), (1, 7)])
def test_one_lam_per_example(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, y = maps(dtype, *shape)
    lam = torch.tensor([0.9, 0.25, 0.0])[: shape[0]]
    mixed = mix(x, y, lam)
    assert mixed.dtype == dtype
    expected = torch.stack([naive.mix(x[i], y[i], float(lam[i])) for i in range(shape[0])])
    weight = torch.randn(shape, dtype=dtype)
    assert_same_gradients((mixed * weight).sum(), (expected * weight).sum(), [("x", x), ("y", y)])


def test_a_scalar_tensor_is_a_number(dtype: torch.dtype) -> None:
    x, y = maps(dtype, 3, 7)
    assert_close(mix(x, y, torch.tensor(0.25)), mix(x, y, 0.25))


def test_half_operands_are_mixed_in_float32_and_rounded_once() -> None:
    x, y = torch.randn(2, 50).bfloat16(), torch.randn(2, 50).bfloat16()
    lam = torch.tensor([0.7, 0.123456])
    mixed = mix(x, y, lam)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, mix(x.float(), y.float(), lam).bfloat16())


def test_double_lam_does_not_change_the_dtype() -> None:
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    assert mix(x, y, torch.tensor([0.5, 0.1], dtype=torch.float64)).dtype == torch.float32


def test_operands_are_not_modified() -> None:
    x, y = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    before = x.clone(), y.clone()
    mix(x, y, 0.5), mix(x, y, torch.rand(2)), align(x, y), align(x, y, iters=0)
    align(x, y, normalize_cost=True)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


@pytest.mark.parametrize("lam", [-0.01, 1.01, float("nan")])
def test_lam_outside_of_the_interval(lam: float) -> None:
    with pytest.raises(ValueError, match=rf"mix needs lam in \[0, 1\], got {lam}\."):
        mix(torch.rand(2, 3), torch.rand(2, 3), lam)


def test_lam_of_a_wrong_shape_raises() -> None:
    with pytest.raises(ValueError, match=r"a scalar lam or one of shape \(2,\), got .*\[3\]"):
        mix(torch.rand(2, 3), torch.rand(2, 3), torch.rand(3))
    with pytest.raises(ValueError, match=r"a scalar lam or one of shape \(2,\), got"):
        mix(torch.rand(2, 3), torch.rand(2, 3), torch.rand(2, 1))


def test_operands_of_different_shapes_raise() -> None:
    with pytest.raises(ValueError, match=r"two tensors of the same shape, got .*\[2, 3\].*"):
        mix(torch.rand(2, 3), torch.rand(3, 3), 0.5)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (6, 3), (1, 2)])
def test_cost_is_the_sum_over_channels(n: int, m: int, dtype: torch.dtype) -> None:
    a, b = torch.randn(2, 5, n, dtype=dtype), torch.randn(2, 5, m, dtype=dtype)
    cost = squared_distances(a, b)
    assert cost.dtype == dtype
    for i in range(2):
        assert_near(cost[i], naive.cost(a[i], b[i]))


def test_cost_between_equal_features_is_zero_and_never_below(dtype: torch.dtype) -> None:
    a = torch.randn(2, 64, 9, dtype=dtype) * 10
    cost = squared_distances(a, a)
    assert float(cost.min()) >= 0
    assert float(cost.diagonal(dim1=1, dim2=2).max()) <= 2e-6 * float(cost.max())


def test_cost_far_from_the_origin() -> None:
    """The square of 1000 has a rounding error of 0.06 in float32, while distances are about 10."""
    a, b = torch.randn(2, 5, 6) + 1000, torch.randn(2, 5, 4) + 1000
    for i in range(2):
        assert_close(
            squared_distances(a, b)[i].double(), naive.cost(a[i], b[i]), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_cost_of_half_features_is_in_float32(half: torch.dtype) -> None:
    a, b = torch.randn(1, 5, 6).to(half), torch.randn(1, 5, 4).to(half)
    cost = squared_distances(a, b)
    assert cost.dtype == torch.float32
    assert_near(cost[0], naive.cost(a[0], b[0]))


SHAPES = [(2, 3, 2, 3), (1, 4, 3, 3), (3, 2, 1, 4), (1, 2, 1, 1)]


@pytest.mark.parametrize("iters", [0, 1, 20])
@pytest.mark.parametrize(
    ("shape", "normalize_cost"),
    # normalizing a single cost leaves nothing to test
    [(shape, False) for shape in SHAPES] + [(shape, True) for shape in SHAPES[:-1]],
)
def test_alignment_equals_the_loop_in_value_and_gradient(
    shape: tuple[int, ...], iters: int, normalize_cost: bool, dtype: torch.dtype
) -> None:
    """Random maps give an asymmetric P, so a transposed R would fail."""
    a, b = maps(dtype, *shape)
    ours = align(a, b, 0.4, iters, normalize_cost)
    theirs = naive_batch(a, b, 0.4, iters, normalize_cost)
    for side, mine, other in zip(("a", "b"), ours, theirs, strict=True):
        assert_near(mine, other, side)
    weights = [torch.randn(shape, dtype=dtype) for _ in range(2)]
    mine, other = (
        sum((w * t).sum() for w, t in zip(weights, pair, strict=True)) for pair in (ours, theirs)
    )
    assert_same_gradients(mine, other, [("a", a), ("b", b)])


def test_the_default_is_eps_a_tenth_and_a_hundred_iterations(dtype: torch.dtype) -> None:
    a, b = maps(dtype, 1, 3, 2, 3)
    for mine, other in zip(align(a, b), naive_batch(a, b, 0.1, 100), strict=True):
        assert_near(mine, other)


def test_a_permuted_map_is_put_back_in_order(dtype: torch.dtype) -> None:
    order = torch.tensor([4, 2, 0, 5, 3, 1])  # not its own inverse
    a = torch.randn(2, 8, 2, 3, dtype=dtype)
    b = a.flatten(2)[..., order].view_as(a)
    a_aligned, b_aligned = align(a, b, eps=0.01, iters=50)
    assert_close(a_aligned, a)
    assert_close(b_aligned, b)


def test_large_eps_gives_the_mean_of_the_other_map(dtype: torch.dtype) -> None:
    a, b = maps(dtype, 2, 3, 2, 3)
    a_aligned, b_aligned = align(a, b, eps=1e7, iters=1)
    assert_close(a_aligned, b.mean((2, 3), keepdim=True).expand_as(a), rtol=1e-4, atol=1e-5)
    assert_close(b_aligned, a.mean((2, 3), keepdim=True).expand_as(a), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("iters", [0, 10])
def test_aligned_features_are_convex_combinations_of_the_other_map(iters: int) -> None:
    a, b = maps(torch.float64, 2, 3, 2, 3)
    ones = torch.ones(2, 1, 2, 3, dtype=torch.float64)
    a, b = torch.cat([a, ones], 1), torch.cat([b, 2 * ones], 1)
    a_aligned, b_aligned = align(a, b, iters=iters)
    rows_exact = iters == 0  # columns are exact always
    if rows_exact:
        assert_close(a_aligned[:, 3], 2 * ones[:, 0])
    assert_close(b_aligned[:, 3], ones[:, 0])


@pytest.mark.parametrize("iters", [1, 3])
def test_alignment_keeps_the_mean_of_the_other_map(iters: int, dtype: torch.dtype) -> None:
    """Columns of R sum to 1 after each iteration, so average pooling does not change."""
    a, b = maps(dtype, 2, 3, 2, 3)
    a_aligned, _ = align(a, b, iters=iters)
    assert_close(a_aligned.mean((2, 3)), b.mean((2, 3)))
    weight = torch.randn(2, 3, dtype=dtype)
    (gradient,) = torch.autograd.grad((a_aligned.mean((2, 3)) * weight).sum(), b)
    assert_close(gradient, (weight / 6)[:, :, None, None].expand_as(b))


def test_no_gradient_passes_through_the_plan() -> None:
    """A~ depends on A only via the plan, so it has no gradient in A."""
    a, b = maps(torch.float32, 2, 3, 2, 2)
    a_aligned, b_aligned = align(a, b)
    assert torch.autograd.grad(a_aligned.sum(), a, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(b_aligned.sum(), b, allow_unused=True) == (None,)
    c, d = a.detach(), b
    assert not align(c, d)[1].requires_grad and align(c, d)[0].requires_grad


def test_autocast_leaves_cost_and_plan_in_float32() -> None:
    a, b = maps(torch.float32, 2, 16, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = align(a, b)
    for mine, outside in zip(inside, align(a, b), strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, outside)


def test_half_maps_are_aligned_in_float32_and_rounded_once() -> None:
    a, b = torch.randn(2, 16, 3, 3).bfloat16(), torch.randn(2, 16, 3, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halves = align(a, b)
    for mine, full in zip(halves, align(a.float(), b.float()), strict=True):
        assert mine.dtype == torch.bfloat16
        assert torch.equal(mine, full.bfloat16())


def test_alignment_far_from_the_origin() -> None:
    """A common offset must not change the plan; otherwise, features would be wrong by about 1."""
    a, b = torch.randn(2, 8, 2, 3) + 1000, torch.randn(2, 8, 2, 3) + 1000
    exact = naive_batch(a.double(), b.double(), 0.1, 100)
    for mine, other in zip(align(a, b), exact, strict=True):
        assert_close(mine.double(), other, rtol=0, atol=2e-3)


def test_the_tolerance_reaches_the_plan() -> None:
    a, b = maps(torch.float64, 1, 3, 2, 3)
    once, loose, full = align(a, b, iters=1), align(a, b, tol=1.0), align(a, b)
    for one, stopped, all_iterations in zip(once, loose, full, strict=True):
        assert torch.equal(one, stopped)
        assert float((stopped - all_iterations).detach().abs().max()) > 1e-3


def test_a_cost_of_zeros_can_be_normalized() -> None:
    a = torch.ones(1, 2, 2, 2)
    for side in align(a, a.clone(), normalize_cost=True):
        assert_close(side, a)


def test_maps_that_do_not_match_raise() -> None:
    message = r"align needs two maps \(B, C, H, W\) of the same shape, got .*\[2, 3, 4\].*"
    with pytest.raises(ValueError, match=message):
        align(torch.rand(2, 3, 4), torch.rand(2, 3, 4))
    with pytest.raises(ValueError, match=r"the same shape, got .*\[2, 3, 2, 2\].*\[2, 3, 2, 1\]"):
        align(torch.rand(2, 3, 2, 2), torch.rand(2, 3, 2, 1))
    with pytest.raises(ValueError, match="eps > 0"):
        align(torch.rand(2, 3, 2, 2), torch.rand(2, 3, 2, 2), eps=0)
    with pytest.raises(ValueError, match="iters >= 0"):
        align(torch.rand(2, 3, 2, 2), torch.rand(2, 3, 2, 2), iters=-1)


@pytest.mark.parametrize("lam", [1.5, -0.1, float("nan")])
def test_a_tensor_of_lambdas_outside_the_interval(lam: float) -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"mix needs lam in \[0, 1\]"):
        mix(x, x, torch.tensor([0.5, lam]))


@pytest.mark.parametrize("iters", [0, 30])
def test_align_uses_the_assignment(iters: int, dtype: torch.dtype) -> None:
    a, b = (torch.randn(2, 3, 2, 4, dtype=dtype) for _ in range(2))
    rows, columns = assignment(a, b, eps=0.7, iters=iters)
    for i in range(2):
        m = naive.cost(a[i].flatten(1), b[i].flatten(1))
        for found, axis in ((rows, "row"), (columns, "column")):
            expected = 8 * naive.sinkhorn(m, 0.7, iters, axis)
            assert_close(found[i], expected.to(dtype), atol=1e-5, rtol=1e-4)
    assert rows.dtype == dtype and not assignment(a.requires_grad_(), b)[0].requires_grad


def test_correspondences_recover_a_permutation(dtype: torch.dtype) -> None:
    a = 3 * torch.randn(1, 6, 3, 3, dtype=dtype)
    order = torch.tensor([4, 0, 8, 2, 6, 1, 3, 7, 5])
    b = a.flatten(2)[:, :, order].view_as(a)  # position j of b is order[j] of a
    index, share = correspondences(assignment(a, b)[0], top=1)
    assert index[0, :, 0].tolist() == [order.tolist().index(i) for i in range(9)]
    assert_close(share, torch.ones_like(share), atol=1e-3, rtol=0)


def test_correspondences_by_hand() -> None:
    """Half of the strongest entry is enough, less is not."""
    r = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1], [0.4, 0.2, 0.4]])
    index, share = correspondences(r, top=2)
    assert index[:2, 0].tolist() == [0, 1] and index[0, 1] == 2
    assert set(index[2].tolist()) == {0, 2}
    expected = torch.tensor([[0.5, 0.3], [0.8, 0.0], [0.4, 0.4]])
    assert_close(share, expected)
    assert_close(correspondences(r, 3, 0.0)[1].sum(-1), torch.ones(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, r"top in \[1, M\], got \(3, 4\) and top=0\."),
        ({"top": 5}, r"top in \[1, M\], got \(3, 4\) and top=5\."),
        ({"least": 1.5}, r"least in \[0, 1\], got 1\.5\."),
    ],
)
def test_correspondences_with_options_out_of_range_raise(
    options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        correspondences(torch.rand(3, 4), **options)
