"""Windows of patches against loops, and attention in them against attention with a mask."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Attention
from torch.testing import assert_close

from mixplug.models.vit.windows import from_windows, to_windows

GRIDS = [((4, 6), 2), ((5, 3), 2), ((3, 4), 4), ((2, 2), 1)]


def tokens_of(grid: tuple[int, int], prefix: int, dtype: torch.dtype = torch.float64):
    torch.manual_seed(sum(grid) + prefix)
    return torch.randn(2, prefix + grid[0] * grid[1], 8, dtype=dtype)


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize(("grid", "window"), GRIDS)
def test_windows_hold_what_is_beside_each_other(grid, window, prefix) -> None:
    tokens = tokens_of(grid, prefix)
    windows, mask = to_windows(tokens, grid, window, prefix)
    number = 0
    for image in tokens:
        for top in range(0, grid[0], window):
            for left in range(0, grid[1], window):
                for p in range(prefix):
                    assert torch.equal(windows[number, p], image[p])
                for place in range(window * window):
                    row, column = top + place // window, left + place % window
                    inside = row < grid[0] and column < grid[1]
                    wanted = image[prefix + row * grid[1] + column] if inside else torch.zeros(8)
                    assert torch.equal(windows[number, prefix + place], wanted.double())
                    if mask is not None:
                        assert bool(mask[number, 0, 0, prefix + place]) == inside
                number += 1
    assert number == len(windows)
    assert (mask is None) == (not grid[0] % window and not grid[1] % window)
    assert_close(from_windows(windows, grid, window, prefix), tokens)


def test_prefix_tokens_are_the_mean_over_windows() -> None:
    windows, _ = to_windows(tokens_of((4, 4), 1), (4, 4), 2, 1)
    changed = windows.clone()
    changed[:, 0] = torch.arange(8.0).double()[:, None]
    out = from_windows(changed, (4, 4), 2, 1)
    assert_close(out[:, 0], torch.tensor([[1.5], [5.5]]).double().expand(-1, 8))


@pytest.mark.parametrize(("grid", "window"), GRIDS)
def test_attention_in_windows_is_attention_with_a_mask(grid, window) -> None:
    """Patches of a window attend to each other and to the prefix; to nothing that was filled up."""
    tokens = tokens_of(grid, 1)
    attention = Attention(8, 2, qkv_bias=True).double()
    windows, mask = to_windows(tokens, grid, window, 1)
    out = from_windows(attention(windows, attn_mask=mask), grid, window, 1)
    rows, columns = torch.arange(grid[0]).repeat_interleave(grid[1]), torch.arange(grid[1])
    columns = columns.repeat(grid[0])
    home = rows // window * 100 + columns // window
    allowed = torch.ones(1 + len(home), 1 + len(home), dtype=torch.bool)
    allowed[1:, 1:] = home[:, None] == home
    assert_close(out[:, 1:], attention(tokens, attn_mask=allowed[None, None])[:, 1:])


@pytest.mark.parametrize(("shape", "window"), [((2, 5, 3), 2), ((2, 4), 2), ((2, 6, 3), 0)])
def test_what_does_not_fit(shape, window) -> None:
    with pytest.raises(ValueError, match=r"window >= 1 and tokens \(B, 0 \+ 2 x 3, D\), got"):
        to_windows(torch.zeros(shape), (2, 3), window)
