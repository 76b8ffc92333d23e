"""Maps read out of module outputs and put back, for every layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toys import pool as naive_pool

from mixplug.layouts import Layout, pool

NCHW, NHWC, TOKENS = Layout(), Layout(channels_last=True), Layout(prefix=2)


def test_channels_first_is_the_map_itself() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(NCHW.map(x), x)
    assert NCHW.prefix_tokens(x) is None
    assert torch.equal(NCHW.restore(x, 2 * x, None), 2 * x)


def test_channels_last_is_permuted_and_back() -> None:
    x = torch.randn(2, 4, 5, 3)
    a = NHWC.map(x)
    assert a.shape == (2, 3, 4, 5) and torch.equal(a[1, 2], x[1, :, :, 2])
    assert torch.equal(NHWC.restore(x, a, None), x)


def test_tokens_fill_a_square_row_by_row() -> None:
    x = torch.randn(3, 2 + 4, 5)
    a = TOKENS.map(x)
    assert a.shape == (3, 5, 2, 2)
    for n, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert torch.equal(a[:, :, row, column], x[:, 2 + n])
    assert torch.equal(TOKENS.prefix_tokens(x), x[:, :2])
    assert torch.equal(TOKENS.restore(x, a, x[:, :2]), x)


@pytest.mark.parametrize("tokens", [3, 6, 8])
def test_tokens_that_fill_no_square_are_one_row(tokens: int) -> None:
    x = torch.randn(2, 2 + tokens, 5)
    a = TOKENS.map(x)
    assert a.shape == (2, 5, 1, tokens)
    assert torch.equal(a[:, :, 0].mT, x[:, 2:])
    assert torch.equal(TOKENS.restore(x, a, x[:, :2]), x)


def test_tokens_without_a_prefix() -> None:
    x = torch.randn(2, 4, 5)
    assert Layout().prefix_tokens(x) is None
    assert torch.equal(Layout().map(x).flatten(2).mT, x)
    assert torch.equal(Layout().restore(x, Layout().map(x), None), x)


@pytest.mark.parametrize("kind", [tuple, list])
def test_the_last_of_several_levels_counts(kind: type) -> None:
    first, last = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    output = kind([first, last])
    assert NCHW.map(output) is last
    put = NCHW.restore(output, last + 1, None)
    assert type(put) is kind and put[0] is first and torch.equal(put[1], last + 1)
    assert output[1] is last  # the caller's own list is left alone


def check_positions(layout: Layout, output: Tensor) -> Tensor:
    """Every position as an example, in the order (B, N): pooling it gives its column."""
    split = layout.positions(output)
    a = layout.map(output)
    columns = torch.stack([c for one in a for c in one.flatten(1).T])
    assert split.shape[0] == len(columns)
    assert torch.equal(layout.map(split).flatten(1), columns)
    return split


def test_positions_of_maps() -> None:
    assert check_positions(NCHW, torch.randn(2, 3, 4, 5)).shape == (40, 3, 1, 1)
    assert check_positions(NHWC, torch.randn(2, 4, 5, 3)).shape == (40, 1, 1, 3)


def test_positions_of_tokens_fill_the_prefix_too() -> None:
    """So that class-token, average and attention pooling all return the token itself."""
    split = check_positions(TOKENS, torch.randn(2, 2 + 4, 5))
    assert split.shape == (8, 3, 5)
    assert torch.equal(split[:, 0], split[:, 2]) and torch.equal(split[:, 1], split[:, 2])


def test_positions_of_levels() -> None:
    first, last = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    split = NCHW.positions((first, last))
    assert split[0] is first and torch.equal(split[1], NCHW.positions(last))


@pytest.mark.parametrize(
    ("layout", "shape", "message"),
    [
        (
            NCHW,
            (2, 3),
            r"with more tokens than the 0 prefix tokens, got shape \(2, 3\)\. Name a module before",
        ),
        (TOKENS, (2, 2, 5), r"with more tokens than the 2 prefix tokens, got shape \(2, 2, 5\)\."),
        (NCHW, (2, 3, 4, 4, 4), r"needs 4 dimensions, or 3 with .*got shape \(2, 3, 4, 4, 4\)\."),
    ],
)
def test_outputs_without_a_map(layout: Layout, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout.map(torch.rand(shape))


@pytest.mark.parametrize("size", [(4, 4), (4, 6), (5, 7), (3, 3)])
@pytest.mark.parametrize("r", [1, 2, 3])
def test_pooling_equals_the_loop(r: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    a = torch.randn(2, 3, *size, dtype=dtype)
    for i in range(2):
        assert_close(pool(a, r)[i], naive_pool(a[i], r))
    assert pool(a, None) is a
    assert pool(a[..., :3, :3], 3).equal(a[..., :3, :3])


def test_a_map_smaller_than_the_resolution() -> None:
    message = (
        r"resolution=3 needs a feature map of at least 3x3, got 2x5: use larger images, a layer "
        r"before the last downsampling, or a model with a smaller stride \(last_stride=1\)\."
    )
    with pytest.raises(ValueError, match=message):
        pool(torch.rand(1, 2, 2, 5), 3)


def test_the_grid_of_tokens_is_taken_where_it_fits() -> None:
    tokens = torch.arange(8.0).view(1, 8, 1)
    assert Layout(grid=(2, 4)).map(tokens).shape == (1, 1, 2, 4)
    assert Layout(grid=(3, 4)).map(tokens).shape == (1, 1, 1, 8)
    assert Layout(grid=(1, 4)).map(tokens[:, :4]).shape == (1, 1, 1, 4)


def test_a_class_token_that_was_not_declared() -> None:
    with pytest.raises(ValueError, match=r"17 tokens are one more than a square.*prefix=1"):
        Layout().map(torch.zeros(1, 17, 3))
    assert Layout(prefix=1).map(torch.zeros(1, 17, 3)).shape == (1, 3, 4, 4)
