"""All random draws of the package. Every function takes a torch.Generator and is stateless.

A draw depends on (seed, rank, step), but not on earlier draws. So an interrupted run that resumes
at any step, on any number of ranks, continues with the same draws.
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
# Purposes of :func:`derive_seed`. They are negative, as steps count from 0.
DATA = -3  # clips and views of the data
HOST = -4  # draws of the training framework itself, such as dropout


@dataclass(frozen=True)
class Generators:
    """The two random generators of a training step.

    Attributes:
        synced: generator with the same state on all ranks. It draws which branch is taken: ranks
            that took different branches would wait for each other's gradients for ever.
        local: generator with a different state on each rank. It draws λ, permutations and Λ.
    """

    synced: torch.Generator
    local: torch.Generator


def generators(seed: int, step: int, rank: int = 0) -> Generators:
    """The generators of a training step. The same arguments give the same draws.

    Args:
        seed: seed of the run, any integer.
        step: number of earlier batches, over all epochs.
        rank: rank of this process.
    """
    return Generators(_keyed(seed, step, _ALL_RANKS), _keyed(seed, step, rank))


def derive_seed(seed: int, purpose: int) -> int:
    """Derive a separate seed for draws outside of mixers and methods, which use ``seed`` itself.

    Args:
        seed: seed of the run.
        purpose: :data:`DATA` or :data:`HOST`.
    """
    return key(generators(seed, purpose).synced)


def generator(key: int, device: torch.device) -> torch.Generator:
    """A generator for draws whose shape is known only after the forward pass to the features.

    It is on ``device`` for CPU and CUDA, and on the CPU for other devices, which do not support all
    distributions of this module.

    Args:
        key: seed of the generator, see :func:`key`.
        device: device of the features.
    """
    return torch.Generator(device if device.type in ("cpu", "cuda") else "cpu").manual_seed(key)


def key(source: torch.Generator) -> int:
    """Draw a seed for :func:`generator` from ``source``, which must be on the CPU."""
    return int(torch.randint(1 << 62, (), generator=source))


def branch(choices: Sequence[str], source: torch.Generator, weights: Sequence[float]) -> str:
    """Draw one of ``choices``, with probabilities proportional to ``weights``."""
    ratio = torch.tensor(weights, dtype=torch.float64)
    return choices[int(torch.multinomial(ratio, 1, generator=source))]


def permutation(size: int, source: torch.Generator) -> Tensor:
    """Draw a uniform permutation π of ``size`` items, (size,) int64."""
    return torch.randperm(size, generator=source)


def other_class(labels: Tensor, source: torch.Generator) -> Tensor:
    """Draw for every item, uniformly, the index of an item of another class, (B,) int64.

    Args:
        labels: classes of the items, (B,).
        source: generator on the CPU.

    Raises:
        ValueError: all items have the same class.
    """
    _, classes, count = labels.unique(return_inverse=True, return_counts=True)
    if len(count) < 2:
        raise ValueError(
            f"other_class needs labels of at least two classes, but all {len(labels)} labels are "
            f"equal."
        )
    order = classes.argsort(stable=True)  # a class has the positions first to first + count
    first = (count.cumsum(0) - count)[classes]
    others = len(labels) - count[classes]
    position = torch.rand(len(labels), dtype=torch.float64, generator=source).mul(others).long()
    position = position.minimum(others - 1)  # in case the product is rounded up
    return order[torch.where(position < first, position, position + count[classes])]


def beta(alpha: float, size: int, source: torch.Generator) -> Tensor:
    """Draw ``size`` values λ of Beta(α, α), (size,) float32, on the device of the generator."""
    drawn = torch.empty(size, device=source.device)
    for part in drawn.split(1 << 13):  # float64 draws in chunks, to save memory
        shape = torch.full((len(part), 2), alpha, dtype=torch.float64, device=source.device)
        part.copy_(torch._sample_dirichlet(shape, generator=source)[:, 0])
    return drawn


def box(height: int, width: int, area: float, source: torch.Generator) -> tuple[int, int, int, int]:
    """Draw a rectangle with the aspect ratio of the image and a uniform center, as in CutMix.

    Args:
        height: height of the image.
        width: width of the image.
        area: area of the rectangle before clipping, as a fraction of the image.
        source: generator on the CPU.

    Returns:
        Top, bottom, left and right, clipped to the image; bottom and right are exclusive.
    """
    high, wide = int(height * area**0.5), int(width * area**0.5)
    row = int(torch.randint(height, (), generator=source))
    column = int(torch.randint(width, (), generator=source))
    top, left = row - high // 2, column - wide // 2
    return max(top, 0), min(top + high, height), max(left, 0), min(left + wide, width)


def uniform(shape: Sequence[int], source: torch.Generator) -> Tensor:
    """Draw uniform numbers in [0, 1), on the device of the generator."""
    return torch.rand(tuple(shape), generator=source, device=source.device)


def weighted(weights: Tensor, size: int, source: torch.Generator) -> Tensor:
    """Draw indices (size,) with replacement, with probabilities proportional to ``weights``."""
    return torch.multinomial(weights, size, True, generator=source)


def normal(shape: Sequence[int], source: torch.Generator) -> Tensor:
    """Draw standard normal numbers, on the device of the generator."""
    return torch.randn(tuple(shape), generator=source, device=source.device)


def subsets(count: int, of: int, size: int, source: torch.Generator) -> Tensor:
    """Draw ``count`` random subsets of size ``size`` of range(of), (count, size) int64.

    Raises:
        ValueError: size is not in [1, of].
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
    """Draw random block-wise masks (Table 6.7c): rectangles until a share of the grid is covered.

    The aspect ratio of a rectangle is between 0.3 and 1 / 0.3. Its area is at least 4 cells, if the
    grid allows it, and at most the number of missing cells. The last rectangle is cut to the exact
    number of cells.

    Args:
        count: number of masks.
        grid: (rows, columns).
        ratio: share of masked cells, or a range (low, high) from which it is drawn uniformly for
            each mask. The number of cells is rounded.
        generator: generator on the CPU.

    Returns:
        (count, rows * columns) bool, True inside of rectangles.

    Raises:
        ValueError: a share is outside [0, 1), or low > high.
    """
    low, high = share_range(ratio)
    cells = grid[0] * grid[1]
    share = low + (high - low) * uniform((count,), generator)
    target = (share * cells).round().long()
    masks = torch.zeros(count, cells, dtype=torch.bool)
    missing = target
    while bool(missing.any()):
        new = _rectangles(missing, grid, generator) & ~masks
        masks |= new & (new.cumsum(-1) <= missing[:, None])
        missing = target - masks.sum(-1)
    return masks


def share_range(ratio: float | Sequence[float]) -> tuple[float, float]:
    """Range (low, high) of a share that is a number or a range.

    Raises:
        ValueError: a value is outside [0, 1), low > high, or it is not a pair.
    """
    pair = (ratio, ratio) if isinstance(ratio, (int, float)) else tuple(ratio)
    if len(pair) != 2 or not 0 <= pair[0] <= pair[1] < 1:
        raise ValueError(
            f"A share must be in [0, 1), or a pair low <= high of such numbers, got {ratio!r}."
        )
    return pair[0], pair[1]


def _rectangles(most: Tensor, grid: tuple[int, int], source: torch.Generator) -> Tensor:
    """One rectangle of about 4 to ``most`` cells per mask, (count, rows * columns) bool."""
    rows, columns = grid
    drawn = uniform((4, len(most)), source)
    area = 4 + (most - 4).clamp(min=0) * drawn[0]
    aspect = (math.log(0.3) * (2 * drawn[1] - 1)).exp()  # log-uniform
    height = (area * aspect).sqrt().round().clamp(1, rows)
    width = (area / aspect).sqrt().round().clamp(1, columns)
    top = ((rows - height + 1) * drawn[2]).floor()
    left = ((columns - width + 1) * drawn[3]).floor()
    row, column = torch.arange(rows), torch.arange(columns)
    inside_rows = (row >= top[:, None]) & (row < (top + height)[:, None])
    inside_columns = (column >= left[:, None]) & (column < (left + width)[:, None])
    return (inside_rows[:, :, None] & inside_columns[:, None, :]).flatten(1)


def hull_weights(
    m: int,
    b: int,
    alpha: float | tuple[float, float] = (0.5, 2.0),
    nonzero: int | None = None,
    generator: torch.Generator | None = None,
    positions: int | None = None,
) -> Tensor:
    r"""Draw interpolation weights Λ of MultiMix (eq. 5.6): vectors λ_k ~ Dir(α) over the batch.

    Args:
        m: number M of vectors.
        b: length B of a vector.
        alpha: concentration α: a number, or (low, high) for α ~ U[low, high], drawn per vector and
            position (§5.4.1).
        nonzero: number of nonzero weights per vector, at random places; None is all B.
        generator: random generator; the result is on its device. None is the global CPU generator
            of PyTorch.
        positions: number N of positions. If given, vectors are drawn for every position.

    Returns:
        (M, B) float32, or (M, B, N) with ``positions``; the sum over B is 1. The latter is a view
        with memory order (N, M, B), which suits the matrix products that follow.

    Raises:
        ValueError: m or b < 1, ``nonzero`` is not in [1, b], or a concentration is not > 0.
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
        index = torch.rand(*lead, b, generator=generator, device=device).argsort(-1)
        weights = weights.new_zeros(*lead, b).scatter_(-1, index[..., :nonzero], weights)
    return weights if positions is None else weights.permute(1, 2, 0)


def concentration_range(alpha: float | Sequence[float]) -> tuple[float, float]:
    """Range (low, high) of a concentration that is a number or a range.

    Raises:
        ValueError: a value is not > 0, low > high, or it is not a pair.
    """
    pair = (alpha, alpha) if isinstance(alpha, (int, float)) else tuple(alpha)
    if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
        raise ValueError(f"alpha must be a number > 0 or a pair 0 < low <= high, got {alpha!r}.")
    return float(pair[0]), float(pair[1])


def _keyed(*numbers: int) -> torch.Generator:
    """A CPU generator whose seed depends on all bits of all numbers (finalizer of splitmix64)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)


__getattr__ = renamed_names(__name__, {"apart": derive_seed})
