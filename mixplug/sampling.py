"""Every random draw of the package. Each function takes a torch.Generator; none keeps state.

A draw is keyed by (seed, rank, step) and not by what was drawn before, so a run that is resumed at
any step, on any number of ranks, goes on as if it had not stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.renamed import renamed_names

_MASK = (1 << 64) - 1
_ALL_RANKS = -1
DATA = -3  # purposes of :func:`derive_seed`: which clips and views there are,
HOST = -4  # and what a host draws by itself, such as dropout; steps count from 0


@dataclass(frozen=True)
class Generators:
    """The two sources of one training step.

    Attributes:
        synced: equal on all ranks. Which branch is taken comes from it, since ranks that took
            different branches would wait for each other's gradients for ever.
        local: differs from rank to rank. λ, permutations and Λ come from it.
    """

    synced: torch.Generator
    local: torch.Generator


def generators(seed: int, step: int, rank: int = 0) -> Generators:
    """The generators of training step ``step``: the same arguments give the same draws.

    Args:
        seed: of the run, any integer.
        step: how many batches came before, over all epochs.
        rank: of this process.
    """
    return Generators(_keyed(seed, step, _ALL_RANKS), _keyed(seed, step, rank))


def derive_seed(seed: int, purpose: int) -> int:
    """A seed of its own for draws that are none of a mixer's or a method's, which have ``seed``.

    Args:
        seed: of the run.
        purpose: one of :data:`DATA` and :data:`HOST`.
    """
    return key(generators(seed, purpose).synced)


def generator(key: int, device: torch.device) -> torch.Generator:
    """A generator for draws whose shape is known only after the features are made.

    It lives on ``device`` if that can draw from every distribution here, else on the CPU.
    """
    return torch.Generator(device if device.type in ("cpu", "cuda") else "cpu").manual_seed(key)


def key(source: torch.Generator) -> int:
    """A number for :func:`generator`, drawn from ``source``, which must be on the CPU."""
    return int(torch.randint(1 << 62, (), generator=source))


def branch(choices: Sequence[str], source: torch.Generator, weights: Sequence[float]) -> str:
    """One of ``choices``, with probabilities in the ratio of ``weights``."""
    ratio = torch.tensor(weights, dtype=torch.float64)
    return choices[int(torch.multinomial(ratio, 1, generator=source))]


def permutation(size: int, source: torch.Generator) -> Tensor:
    """A uniform permutation π of ``size`` items, (B,) int64."""
    return torch.randperm(size, generator=source)


def other_class(labels: Tensor, source: torch.Generator) -> Tensor:
    """For every item one of another class, each with equal probability, (B,) int64.

    Raises:
        ValueError: an only class.
    """
    _, classes, count = labels.unique(return_inverse=True, return_counts=True)
    if len(count) < 2:
        raise ValueError(f"No item is of another class: all {len(labels)} labels are equal.")
    order = classes.argsort(stable=True)  # a class fills the places from first to first + count
    first = (count.cumsum(0) - count)[classes]
    others = len(labels) - count[classes]
    place = torch.rand(len(labels), dtype=torch.float64, generator=source).mul(others).long()
    place = place.minimum(others - 1)  # should the product be rounded up
    return order[torch.where(place < first, place, place + count[classes])]


def beta(alpha: float, size: int, source: torch.Generator) -> Tensor:
    """``size`` draws λ of the symmetric Beta(α, α), float32, on the generator's device."""
    drawn = torch.empty(size, device=source.device)
    for part in drawn.split(1 << 13):  # in double, which of many would be much memory
        shape = torch.full((len(part), 2), alpha, dtype=torch.float64, device=source.device)
        part.copy_(torch._sample_dirichlet(shape, generator=source)[:, 0])
    return drawn


def box(height: int, width: int, area: float, source: torch.Generator) -> tuple[int, int, int, int]:
    """A rectangle (top, bottom, left, right) of the image's aspect, centered anywhere, clipped.

    ``area`` is its share of the image before clipping.
    """
    high, wide = int(height * area**0.5), int(width * area**0.5)
    row = int(torch.randint(height, (), generator=source))
    column = int(torch.randint(width, (), generator=source))
    top, left = row - high // 2, column - wide // 2
    return max(top, 0), min(top + high, height), max(left, 0), min(left + wide, width)


def uniform(shape: Sequence[int], source: torch.Generator) -> Tensor:
    """Uniform draws in [0, 1) on the generator's device."""
    return torch.rand(tuple(shape), generator=source, device=source.device)


def weighted(weights: Tensor, size: int, source: torch.Generator) -> Tensor:
    """``size`` indices (size,) with replacement, with probabilities in the ratio of ``weights``."""
    return torch.multinomial(weights, size, True, generator=source)


def normal(shape: Sequence[int], source: torch.Generator) -> Tensor:
    """Standard normal draws on the generator's device."""
    return torch.randn(tuple(shape), generator=source, device=source.device)


def subsets(count: int, of: int, size: int, source: torch.Generator) -> Tensor:
    """``count`` random subsets of ``size`` of the numbers below ``of``, (count, size) int64.

    Raises:
        ValueError: size not in [1, of].
    """
    if not 1 <= size <= of:
        raise ValueError(f"subsets needs 1 <= size <= {of}, got {size}.")
    return uniform((count, of), source).argsort(-1)[:, :size]


def block_masks(
    count: int,
    grid: tuple[int, int],
    ratio: float | Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """Random block-wise masks (Table 6.7c): rectangles until a share of the grid is covered.

    A rectangle has at least 4 cells where there is room for them, at most those that are still
    missing, and sides in a ratio between 0.3 and 1 / 0.3; the last is cut to the exact number.

    Args:
        count: number of masks.
        grid: (rows, columns).
        ratio: the share, or (low, high) of which it is drawn uniformly per mask; rounded to cells.
        generator: on the CPU.

    Returns:
        (count, rows * columns) bool, True inside of rectangles.

    Raises:
        ValueError: shares outside [0, 1), or low > high.
    """
    low, high = share_range(ratio)
    cells = grid[0] * grid[1]
    share = low + (high - low) * uniform((count,), generator)
    wanted = (share * cells).round().long()
    masks = torch.zeros(count, cells, dtype=torch.bool)
    missing = wanted
    while bool(missing.any()):
        new = _rectangles(missing, grid, generator) & ~masks
        masks |= new & (new.cumsum(-1) <= missing[:, None])
        missing = wanted - masks.sum(-1)
    return masks


def share_range(ratio: float | Sequence[float]) -> tuple[float, float]:
    """(low, high) of a share given as a number or a range.

    Raises:
        ValueError: outside [0, 1), decreasing, or not a pair.
    """
    pair = (ratio, ratio) if isinstance(ratio, (int, float)) else tuple(ratio)
    if len(pair) != 2 or not 0 <= pair[0] <= pair[1] < 1:
        raise ValueError(f"A share must be in [0, 1), or a range in it, got {ratio!r}.")
    return pair[0], pair[1]


def _rectangles(most: Tensor, grid: tuple[int, int], source: torch.Generator) -> Tensor:
    """One rectangle of about 4 to ``most`` cells for each, (count, rows * columns) bool."""
    rows, columns = grid
    drawn = uniform((4, len(most)), source)
    area = 4 + (most - 4).clamp(min=0) * drawn[0]
    aspect = (math.log(0.3) * (2 * drawn[1] - 1)).exp()  # log-uniform
    high = (area * aspect).sqrt().round().clamp(1, rows)
    wide = (area / aspect).sqrt().round().clamp(1, columns)
    top = ((rows - high + 1) * drawn[2]).floor()
    left = ((columns - wide + 1) * drawn[3]).floor()
    down, along = torch.arange(rows), torch.arange(columns)
    inside_rows = (down >= top[:, None]) & (down < (top + high)[:, None])
    inside_columns = (along >= left[:, None]) & (along < (left + wide)[:, None])
    return (inside_rows[:, :, None] & inside_columns[:, None, :]).flatten(1)


def hull_weights(
    m: int,
    b: int,
    alpha: float | tuple[float, float] = (0.5, 2.0),
    nonzero: int | None = None,
    generator: torch.Generator | None = None,
    positions: int | None = None,
) -> Tensor:
    r"""Λ: vectors λ_k ~ Dir(α) on the simplex over the batch (5.6), one concentration per vector.

    Args:
        m: M, number of vectors.
        b: B, their length.
        alpha: a number, or (low, high) with α ~ U[low, high] per vector (5.4.1).
        nonzero: how many of the B weights are not zero, a random subset per vector; None is all.
        generator: source; its device is the result's. None is torch's global CPU generator.
        positions: N; if given the vectors are drawn per position too.

    Returns:
        (M, B) float32, or (M, B, N), with B summing to 1. The latter is a view whose memory is
        ordered (N, M, B), as the products that follow want it.

    Raises:
        ValueError: m or b < 1, nonzero not in [1, b], or a concentration that is not > 0.
    """
    low, high = concentration_range(alpha)
    nonzero = b if nonzero is None else nonzero
    if m < 1 or b < 1 or not 1 <= nonzero <= b:
        raise ValueError(
            f"hull_weights needs m >= 1, b >= 1 and 1 <= nonzero <= b, got m={m}, b={b}, "
            f"nonzero={nonzero}."
        )
    device = generator.device if generator is not None else torch.device("cpu")
    lead = (m,) if positions is None else (positions, m)
    concentration = torch.rand(*lead, 1, generator=generator, device=device)
    concentration = concentration.mul_(high - low).add_(low)
    weights = torch._sample_dirichlet(concentration.expand(*lead, nonzero), generator)
    if nonzero < b:
        place = torch.rand(*lead, b, generator=generator, device=device).argsort(-1)
        weights = weights.new_zeros(*lead, b).scatter_(-1, place[..., :nonzero], weights)
    return weights if positions is None else weights.permute(1, 2, 0)


def concentration_range(alpha: float | Sequence[float]) -> tuple[float, float]:
    """(low, high) of a concentration given as a number or a range.

    Raises:
        ValueError: not positive, not increasing, or not a pair.
    """
    pair = (alpha, alpha) if isinstance(alpha, (int, float)) else tuple(alpha)
    if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
        raise ValueError(f"alpha must be a number > 0 or a pair 0 < low <= high, got {alpha!r}.")
    return float(pair[0]), float(pair[1])


def _keyed(*numbers: int) -> torch.Generator:
    """A CPU generator whose seed mixes all bits of all numbers (splitmix64's finalizer)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)


__getattr__ = renamed_names(__name__, {"apart": derive_seed})
