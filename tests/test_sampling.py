"""Random draws: their keys, supports and moments.

Statistical bounds are five standard errors, so that a correct function passes for almost any seed.
The seed is fixed, so a test either always passes or always fails.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mixplug import sampling


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moment_error(values: Tensor, power: int, center: float, expected: float) -> float:
    """|mean of (values - center)^power - expected| in standard errors.

    For values in [0, 1] the powers X are in [-1, 1], so Var X <= E X^2 <= E |X|.
    """
    x = (values.double() - center) ** power
    deviation = math.sqrt(float(x.square().mean()) / x.numel())
    return abs(float(x.mean()) - expected) / deviation


DRAWS: dict[str, Callable[[torch.Generator], object]] = {
    "key": sampling.key,
    "branch": lambda g: [sampling.branch("abcd", g, [1.0] * 4) for _ in range(30)],
    "permutation": lambda g: sampling.permutation(30, g).tolist(),
    "beta": lambda g: sampling.beta(2.0, 5, g).tolist(),
    "box": lambda g: [sampling.box(20, 30, 0.2, g) for _ in range(5)],
    "normal": lambda g: sampling.normal((2, 3), g).tolist(),
    "hull_weights": lambda g: sampling.hull_weights(4, 5, nonzero=3, generator=g).tolist(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_depends_on_its_generator_alone(name: str) -> None:
    draw = DRAWS[name]
    torch.manual_seed(1)
    first = draw(seeded(7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert draw(seeded(7)) == first
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is not used
    assert draw(seeded(8)) != first


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_advances_its_generator(name: str) -> None:
    source = seeded()
    assert DRAWS[name](source) != DRAWS[name](source)


def test_the_same_key_gives_the_same_draws() -> None:
    one, same = sampling.generators(3, 5, 2), sampling.generators(3, 5, 2)
    assert sampling.key(one.synced) == sampling.key(same.synced)
    assert sampling.key(one.local) == sampling.key(same.local)


def test_synced_is_equal_over_ranks_and_local_is_not() -> None:
    ranks = [sampling.generators(3, 5, rank) for rank in range(8)]
    assert len({sampling.key(g.synced) for g in ranks}) == 1
    assert len({sampling.key(g.local) for g in ranks}) == 8
    both = sampling.generators(3, 5, 0)
    assert sampling.key(both.synced) != sampling.key(both.local)


def test_every_seed_step_and_rank_has_different_draws() -> None:
    """Also where sums or swaps of the three numbers are equal, and for negative seeds."""
    grid = list(itertools.product((-1, 0, 1, 2, 3, 1 << 40), range(5), range(5)))
    local = {sampling.key(sampling.generators(*numbers).local) for numbers in grid}
    assert len(local) == len(grid)
    steps = list(itertools.product((-1, 0, 1, 2, 3, 1 << 40), range(5)))
    synced = {sampling.key(sampling.generators(*numbers).synced) for numbers in steps}
    assert len(synced) == len(steps)
    assert not local & synced


def test_draws_of_neighboring_steps_are_independent() -> None:
    """Lag-one correlation of 4000 first uniforms: standard error 1/sqrt(4000)."""
    sources = (sampling.generators(0, step).local for step in range(4000))
    draws = torch.tensor([float(torch.rand((), generator=source)) for source in sources])
    assert moment_error(draws, 1, 0, 1 / 2) < 5
    assert moment_error(draws, 2, 0.5, 1 / 12) < 5
    lag = torch.corrcoef(torch.stack([draws[1:], draws[:-1]]))[0, 1]
    assert abs(float(lag)) < 5 / math.sqrt(4000)


def test_the_generator_of_a_key_is_on_the_device_or_the_cpu() -> None:
    same = [sampling.generator(11, torch.device(name)) for name in ("cpu", "meta", "mps")]
    assert {g.device.type for g in same} == {"cpu"}
    assert len({sampling.key(g) for g in same}) == 1
    assert sampling.key(sampling.generator(12, torch.device("cpu"))) != sampling.key(
        sampling.generator(11, torch.device("cpu"))
    )


def test_branches_come_in_the_ratio_of_their_weights() -> None:
    """Counts of 6000 draws are binomial: five times sqrt(n p (1 - p))."""
    source, n = seeded(), 6000
    count = Counter(sampling.branch(("a", "b", "c", "d"), source, (1, 2, 0, 5)) for _ in range(n))
    for name, p in {"a": 1 / 8, "b": 2 / 8, "d": 5 / 8}.items():
        assert abs(count[name] - n * p) < 5 * math.sqrt(n * p * (1 - p))
    assert count["c"] == 0


def test_permutations_are_uniform() -> None:
    """Six permutations of three items, 6000 draws: 1000 +- 5 sqrt(1000 * 5/6)."""
    source = seeded()
    count = Counter(tuple(sampling.permutation(3, source).tolist()) for _ in range(6000))
    assert set(count) == set(itertools.permutations(range(3)))
    assert max(abs(c - 1000) for c in count.values()) < 5 * math.sqrt(1000 * 5 / 6)
    assert sampling.permutation(1, source).tolist() == [0]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0, 8.0])
def test_beta_has_its_mean_and_variance(alpha: float) -> None:
    """Var Beta(α, α) = 1 / (4 (2 α + 1))."""
    lam = sampling.beta(alpha, 100_000, seeded())
    assert lam.dtype == torch.float32 and lam.shape == (100_000,)
    assert float(lam.min()) >= 0 and float(lam.max()) <= 1
    assert moment_error(lam, 1, 0.5, 0) < 5
    assert moment_error(lam, 2, 0.5, 1 / (4 * (2 * alpha + 1))) < 5


def test_beta_of_one_is_uniform() -> None:
    """Kolmogorov-Smirnov: the largest gap exceeds 2 / sqrt(n) once in 1500 seeds."""
    lam = sampling.beta(1.0, 10_000, seeded()).sort().values
    gap = (lam - torch.arange(10_000) / 10_000).abs().max()
    assert float(gap) < 2 / math.sqrt(10_000)


@pytest.mark.parametrize(("height", "width", "area"), [(7, 12, 0.3), (6, 6, 0.9), (5, 9, 1.0)])
def test_boxes_are_centered_anywhere_and_clipped(height: int, width: int, area: float) -> None:
    """The center is uniform over pixels; sides before clipping are floor(side * sqrt(area))."""
    high, wide = math.floor(height * math.sqrt(area)), math.floor(width * math.sqrt(area))
    expected: Counter[tuple[int, ...]] = Counter()
    for row, column in itertools.product(range(height), range(width)):
        rows = [r for r in range(row - high // 2, row - high // 2 + high) if 0 <= r < height]
        columns = [
            c for c in range(column - wide // 2, column - wide // 2 + wide) if 0 <= c < width
        ]
        expected[rows[0], rows[-1] + 1, columns[0], columns[-1] + 1] += 1
    source, n = seeded(), 6000
    count = Counter(sampling.box(height, width, area, source) for _ in range(n))
    assert set(count) == set(expected)
    for box, ways in expected.items():
        p = ways / (height * width)
        assert abs(count[box] - n * p) < 5 * math.sqrt(n * p * (1 - p)) + 1


def test_a_box_without_area_is_empty() -> None:
    source = seeded()
    for _ in range(50):
        top, bottom, left, right = sampling.box(6, 9, 0.0, source)
        assert 0 <= top == bottom <= 6 and 0 <= left == right <= 9


def test_normal_draws_have_mean_zero_and_variance_one() -> None:
    """The standard errors for 100000 draws are 1/sqrt(n) and sqrt(2/n)."""
    draws = sampling.normal((100, 1000), seeded())
    assert draws.shape == (100, 1000) and draws.dtype == torch.float32
    assert abs(float(draws.mean())) < 5 / math.sqrt(draws.numel())
    assert abs(float(draws.var()) - 1) < 5 * math.sqrt(2 / draws.numel())


@pytest.mark.parametrize("nonzero", [None, 1, 2, 5])
@pytest.mark.parametrize("positions", [None, 4])
@pytest.mark.parametrize("alpha", [0.5, 1, (0.5, 2.0)])
def test_hull_weights_are_on_the_simplex(
    alpha: float | tuple[float, float], positions: int | None, nonzero: int | None
) -> None:
    weights = sampling.hull_weights(7, 5, alpha, nonzero, seeded(), positions)
    assert weights.dtype == torch.float32
    assert weights.shape == ((7, 5) if positions is None else (7, 5, 4))
    assert float(weights.min()) >= 0
    assert_close(weights.sum(1), torch.ones_like(weights.sum(1)))
    assert torch.equal((weights > 0).sum(1), torch.full_like(weights.sum(1), nonzero or 5).long())
    if nonzero == 1:
        assert_close(weights.amax(1), torch.ones_like(weights.amax(1)))


def test_hull_weights_of_one_example_are_one() -> None:
    assert_close(sampling.hull_weights(3, 1, generator=seeded()), torch.ones(3, 1))


def test_positions_come_first_in_memory() -> None:
    weights = sampling.hull_weights(7, 5, generator=seeded(), positions=4)
    assert weights.permute(2, 0, 1).is_contiguous()


def test_without_a_generator_the_global_one_draws() -> None:
    torch.manual_seed(5)
    first = sampling.hull_weights(3, 4)
    torch.manual_seed(5)
    assert torch.equal(sampling.hull_weights(3, 4), first)
    assert not torch.equal(sampling.hull_weights(3, 4), first)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("b", [2, 4])
def test_moments_for_one_concentration(b: int, alpha: float) -> None:
    """Dir(α): mean 1/b, variance (b - 1) / (b^2 (b α + 1)), covariance -variance / (b - 1)."""
    weights = sampling.hull_weights(100_000, b, alpha, generator=seeded())
    variance = (b - 1) / (b * b * (b * alpha + 1))
    for i in range(b):
        assert moment_error(weights[:, i], 1, 1 / b, 0) < 5
        assert moment_error(weights[:, i], 2, 1 / b, variance) < 5
    product = (weights[:, 0].double() - 1 / b) * (weights[:, 1].double() - 1 / b)
    assert moment_error(product, 1, 0, -variance / (b - 1)) < 5


def test_moments_for_a_range_of_concentrations() -> None:
    """α ~ U[l, h] per vector: the variance is averaged, (b-1)/b^2 ln((b h+1)/(b l+1)) / (b (h-l)).

    At the mean of this range, α = 5.05, it would be 0.0088, not 0.0160; with one α for all vectors
    it would be that of a single draw.
    """
    low, high, b = 0.1, 10.0, 4
    weights = sampling.hull_weights(100_000, b, (low, high), generator=seeded())
    scale = math.log((b * high + 1) / (b * low + 1)) / (b * (high - low))
    assert (b - 1) / b**2 * scale == pytest.approx(0.0160, abs=5e-4)
    assert moment_error(weights[:, 2], 1, 1 / b, 0) < 5
    assert moment_error(weights[:, 2], 2, 1 / b, (b - 1) / b**2 * scale) < 5


def test_the_default_range_is_a_half_to_two() -> None:
    weights = sampling.hull_weights(100_000, 4, generator=seeded())
    expected = 3 / 16 * math.log(9 / 3) / 6
    assert moment_error(weights[:, 0], 2, 1 / 4, expected) < 5


def test_concentrations_are_drawn_per_position() -> None:
    """sum_i λ_i^2 depends on α. With a common α, it would correlate between positions."""
    weights = sampling.hull_weights(20_000, 4, (0.05, 20.0), None, seeded(), positions=2)
    spread = weights.square().sum(1).T  # (2, M)
    assert abs(float(torch.corrcoef(spread)[0, 1])) < 5 / math.sqrt(20_000)
    one, two = weights[..., 0].flatten(), weights[..., 1].flatten()
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 5 / math.sqrt(20_000)


def test_subsets_are_uniform() -> None:
    """Six pairs of four examples, 6000 vectors; the first weight of a pair is uniform."""
    weights = sampling.hull_weights(6000, 4, 1.0, 2, seeded())
    count = Counter(tuple(row.nonzero().flatten().tolist()) for row in weights)
    assert set(count) == set(itertools.combinations(range(4), 2))
    assert max(abs(c - 1000) for c in count.values()) < 5 * math.sqrt(1000 * 5 / 6)
    first = torch.stack([row[row > 0][0] for row in weights])
    assert moment_error(first, 1, 0.5, 0) < 5  # Dir(1) of two is uniform
    assert moment_error(first, 2, 0.5, 1 / 12) < 5


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 4), r"needs m >= 1, b >= 1 and 1 <= nonzero <= b, got m=0, b=4, nonzero=4\."),
        ((3, 0), r"got m=3, b=0, nonzero=0\."),
        ((3, 4, 1.0, 0), r"got m=3, b=4, nonzero=0\."),
        ((3, 4, 1.0, 5), r"got m=3, b=4, nonzero=5\."),
        ((3, 4, 0.0), r"alpha must be a number > 0 or a pair 0 < low <= high, got 0\.0\."),
        ((3, 4, (2.0, 0.5)), r"a pair 0 < low <= high, got \(2\.0, 0\.5\)\."),
        ((3, 4, (0.5, 1.0, 2.0)), r"a pair 0 < low <= high, got \(0\.5, 1\.0, 2\.0\)\."),
        ((3, 4, math.nan), r"a pair 0 < low <= high, got nan\."),
    ],
)
def test_settings_out_of_range_raise(sizes: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampling.hull_weights(*sizes)


def test_a_number_is_a_range_of_one() -> None:
    assert sampling.concentration_range(2) == (2.0, 2.0)
    assert sampling.concentration_range([0.5, 2]) == (0.5, 2.0)


def test_subsets_are_uniform_and_without_repetition() -> None:
    found = sampling.subsets(20000, 4, 2, torch.Generator().manual_seed(0))
    assert found.shape == (20000, 2) and found.dtype == torch.int64
    assert bool((found[:, 0] != found[:, 1]).all())
    pairs = (found[:, 0] * 4 + found[:, 1]).bincount(minlength=16).view(4, 4) / 20000
    expected = (1 - torch.eye(4)) / 12
    assert float((pairs - expected).abs().max()) < 0.01
    assert sorted(sampling.subsets(1, 3, 3, torch.Generator())[0].tolist()) == [0, 1, 2]
    for size in (0, 5):
        with pytest.raises(ValueError, match=f"subsets needs 1 <= size <= 4, got {size}"):
            sampling.subsets(1, 4, size, torch.Generator())


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("grid", [(14, 14), (3, 9), (1, 1), (1, 12)])
def test_blocks_cover_the_share_exactly(grid: tuple[int, int], ratio: float) -> None:
    masks = sampling.block_masks(20, grid, ratio, torch.Generator().manual_seed(0))
    cells = grid[0] * grid[1]
    assert masks.shape == (20, cells) and masks.dtype == torch.bool
    assert masks.sum(-1).tolist() == [round(ratio * cells)] * 20


def test_the_share_of_blocks_is_uniform_in_its_range() -> None:
    source = torch.Generator().manual_seed(0)
    share = sampling.block_masks(4000, (14, 14), (0.1, 0.5), source).float().mean(-1)
    assert 0.1 <= share.min() < 0.11 and 0.49 < share.max() <= 0.5
    assert share.mean().item() == pytest.approx(0.3, abs=0.01)
    assert share.std().item() == pytest.approx(0.4 / 12**0.5, abs=0.005)


def test_blocks_are_connected_and_cover_all_positions() -> None:
    """Two neighboring cells are equal more often than two independent cells."""
    source = torch.Generator().manual_seed(0)
    masks = sampling.block_masks(2000, (14, 14), 0.3, source).view(-1, 14, 14)
    for alike in (masks[:, 1:] == masks[:, :-1], masks[:, :, 1:] == masks[:, :, :-1]):
        assert alike.float().mean().item() > 0.8  # 0.58 for single cells
    assert masks.flatten(1).unique(dim=0).shape[0] > 1990
    where = masks.float().mean(0)
    assert where.min() > 0.02 and where.max() < 0.6
    again = sampling.block_masks(2000, (14, 14), 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(again, masks.flatten(1))


@pytest.mark.parametrize("ratio", [1.0, -0.1, (0.5, 0.4), (0.1, 0.2, 0.3), (0.1, 1.0)])
def test_shares_of_blocks_out_of_range_raise(ratio: object) -> None:
    message = rf"A share must be in \[0, 1\), or a pair .* got {re.escape(repr(ratio))}\."
    with pytest.raises(ValueError, match=message):
        sampling.block_masks(1, (2, 2), ratio, torch.Generator())
