"""Pooling of mixed maps against pooling after mixing, one pair and one channel at a time."""

from __future__ import annotations

import pytest
import torch
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor

from mixplug.bench.measure import peak_bytes
from mixplug.functional import pooling
from mixplug.functional.pooling import AVERAGE, MAXIMUM, Pool

POOLS = {"avg": AVERAGE, "max": MAXIMUM}
FIRST, SECOND = torch.tensor([0, 0, 2, 1, 3]), torch.tensor([1, 3, 1, 1, 2])


def by_hand(name: str, maps: Tensor, lam: Tensor) -> Tensor:
    """(V, C), channel by channel."""
    rows = []
    for i, j, weight in zip(FIRST, SECOND, lam, strict=True):
        mixed = weight * maps[i] + (1 - weight) * maps[j]
        values = [channel.flatten() for channel in mixed]
        rows.append(
            torch.stack([v.mean() if name == "avg" else v.sort().values[-1] for v in values])
        )
    return torch.stack(rows)


@pytest.mark.parametrize("size", [(2, 3), (1, 1), (4, 4)])
@pytest.mark.parametrize("name", POOLS)
def test_pooling_of_mixed_maps_by_hand(
    name: str, size: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = torch.randn(4, 3, *size, dtype=dtype, requires_grad=True)
    lam = torch.rand(5, dtype=dtype)
    expected = by_hand(name, maps.double(), lam.double())
    for elements in (1, 100, 1 << 18):  # one pair at a time, a few, or all
        monkeypatch.setattr(pooling, "_IN_CACHE", elements)
        found = POOLS[name].mixed(maps, FIRST, SECOND, lam)
        assert found.shape == (5, 3) and found.dtype == dtype
        direction = torch.randn(5, 3, dtype=torch.float64)
        assert_near(found, expected)
        assert_same_gradients(
            (found * direction.to(dtype)).sum(), (expected * direction).sum(), [("maps", maps)]
        )


@pytest.mark.parametrize("name", POOLS)
def test_the_limits_of_lambda(name: str, dtype: torch.dtype) -> None:
    maps = torch.randn(4, 3, 2, 2, dtype=dtype)
    for lam, kept in ((1.0, FIRST), (0.0, SECOND)):
        found = POOLS[name].mixed(maps, FIRST, SECOND, torch.full((5,), lam))
        assert torch.equal(found, POOLS[name].plain(maps)[kept])


def test_only_one_of_tied_positions_receives_the_gradient() -> None:
    """A dead channel after ReLU ties at all positions; its gradient must not be multiplied."""
    maps = torch.zeros(4, 2, 3, 3, requires_grad=True)
    lam = torch.full((5,), 0.25)
    found = MAXIMUM.mixed(maps, FIRST, SECOND, lam)
    found.sum().backward()
    weight = torch.zeros(4).index_add_(0, FIRST, lam).index_add_(0, SECOND, 1 - lam)
    assert_near(maps.grad.sum((1, 2, 3)), 2 * weight)
    assert int((maps.grad != 0).sum()) == 4 * 2


def test_nan_is_propagated() -> None:
    maps = torch.zeros(4, 2, 3, 3)
    maps[1, 0, 2, 2] = float("nan")
    found = MAXIMUM.mixed(maps, FIRST, SECOND, torch.full((5,), 0.5))
    assert found[:, 0].isnan().tolist() == [True, False, True, True, False]
    assert bool(found[:, 1].isfinite().all())


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_no_mixed_map_is_stored(pool: Pool) -> None:
    """Forward and backward for 600 pairs of 64 x 7 x 7; a mixed map has 49 floats per value."""
    maps = torch.randn(40, 64, 7, 7, requires_grad=True)
    first, second = torch.randint(40, (2, 600))
    lam = torch.rand(600)

    def step() -> None:
        pool.mixed(maps, first, second, lam).sum().backward()

    step()  # memory that is allocated only once
    floats = (
        peak_bytes(step) / 4 - 2 * maps.numel()
    )  # the gradient of the maps and its accumulation
    assert floats / (600 * 64) < 20
