"""Bicubic interpolation of positions, by hand and compared with timm."""

from __future__ import annotations

import math

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from mixplug.weights import resize_positions, square_grid
from mixplug.weights.position import prefix_tokens

GRIDS = [((2, 3), (4, 5)), ((5, 4), (3, 2)), ((4, 4), (4, 6)), ((3, 3), (1, 1))]


def cubic(distance: float) -> float:
    """The kernel with a = -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def by_hand(image: Tensor, target: tuple[int, int]) -> Tensor:
    """(rows, columns, D): each from four by four neighbors, with the border repeated."""
    rows, columns, width = image.shape
    found = torch.zeros(*target, width, dtype=torch.float64)
    for i in range(target[0]):
        for j in range(target[1]):
            y = (i + 0.5) * rows / target[0] - 0.5
            x = (j + 0.5) * columns / target[1] - 0.5
            for a in range(math.floor(y) - 1, math.floor(y) + 3):
                for b in range(math.floor(x) - 1, math.floor(x) + 3):
                    value = image[min(max(a, 0), rows - 1), min(max(b, 0), columns - 1)]
                    found[i, j] += cubic(y - a) * cubic(x - b) * value.double()
    return found


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_without_antialiasing_by_hand(
    source: tuple[int, int], target: tuple[int, int], prefix: int, dtype: torch.dtype
) -> None:
    positions = torch.randn(1, prefix + math.prod(source), 5, dtype=dtype)
    found = resize_positions(positions, source, target, antialias=False)
    assert found.dtype == dtype and found.shape == (1, prefix + math.prod(target), 5)
    assert torch.equal(found[:, :prefix], positions[:, :prefix])
    expected = by_hand(positions[0, prefix:].reshape(*source, 5), target).reshape(-1, 5)
    exact = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(found[0, prefix:].double(), expected, atol=exact, rtol=exact)


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_equal_to_timm(source: tuple[int, int], target: tuple[int, int], prefix: int) -> None:
    positions = torch.randn(1, prefix + math.prod(source), 5)
    expected = resample_abs_pos_embed(positions, list(target), list(source), prefix)
    torch.testing.assert_close(resize_positions(positions, source, target), expected)


def test_limits() -> None:
    positions = torch.randn(1, 1 + 6, 4)
    assert resize_positions(positions, (2, 3), (2, 3)) is positions
    turned = resize_positions(
        positions, (2, 3), (3, 2)
    )  # the same number of patches in another grid
    assert not torch.allclose(turned, positions)
    flat = torch.full((1, 10, 4), 0.3)
    for antialias in (True, False):
        torch.testing.assert_close(
            resize_positions(flat, (3, 3), (5, 7), antialias), torch.full((1, 36, 4), 0.3)
        )
    half = resize_positions(positions.half(), (2, 3), (4, 4))
    whole = resize_positions(positions.half().float(), (2, 3), (4, 4))
    assert half.dtype == torch.float16 and torch.equal(half, whole.half())
    assert square_grid(196) == (14, 14)


def test_prefix_tokens() -> None:
    one, four = torch.zeros(1, 1, 3), torch.zeros(1, 4, 3)
    assert [prefix_tokens(s) for s in ({}, {"cls_token": one}, {"reg_token": four})] == [0, 1, 4]
    assert prefix_tokens({"cls_token": one, "reg_token": four}) == 5


def test_invalid_grids() -> None:
    with pytest.raises(
        ValueError, match=r"N = 3 x 3 patches .* got \(1, 7, 4\) and a target of 2 x 2"
    ):
        resize_positions(torch.zeros(1, 7, 4), (3, 3), (2, 2))
    with pytest.raises(ValueError, match=r"\(1, P \+ N, D\)"):
        resize_positions(torch.zeros(9, 4), (3, 3), (2, 2))
    with pytest.raises(ValueError, match="a target of 0 x 2"):
        resize_positions(torch.zeros(1, 9, 4), (3, 3), (0, 2))
    for count in (195, 0, -1):
        with pytest.raises(ValueError, match=f"{count} position embeddings do not form a square"):
            square_grid(count)
