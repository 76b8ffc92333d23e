"""The embedding head against its formula, and whether it commutes with mixing."""

from __future__ import annotations

import math

import pytest
import torch
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional import mix
from mixplug.models.heads.embedding import EmbeddingHead


def maps(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 5, 2, 4, dtype=dtype, requires_grad=True)


def by_hand(head: EmbeddingHead, x: Tensor, pool: str, layer_norm: bool) -> Tensor:
    """One example and one channel at a time."""
    rows = []
    for example in x.double():
        pooled = []
        for channel in example:
            average, largest = channel.sum() / channel.numel(), channel.flatten().sort().values[-1]
            pooled.append({"avg": average, "max": largest, "avg+max": average + largest}[pool])
        row = torch.stack(pooled)
        if layer_norm:
            centered = row - row.sum() / 5
            row = centered / (centered.pow(2).sum() / 5 + 1e-5).sqrt()
        if isinstance(head.fc, torch.nn.Linear):
            row = head.fc.weight.double() @ row + head.fc.bias.double()
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("dim", [None, 3])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("pool", ["avg", "max", "avg+max"])
def test_head_by_hand(pool: str, layer_norm: bool, dim: int | None, dtype: torch.dtype) -> None:
    x = maps(dtype)
    for normalize in (True, False):
        head = EmbeddingHead(5, dim, pool, normalize, layer_norm).to(dtype)
        if dim:
            torch.nn.init.normal_(head.fc.bias)
        expected = by_hand(head, x, pool, layer_norm)
        assert_near(head.raw(x), expected)
        if normalize:
            expected = expected / expected.pow(2).sum(1, keepdim=True).sqrt()
        out = head(x)
        direction = torch.randn(out.shape, dtype=torch.float64)
        assert out.dtype == dtype and head.dim == out.shape[1] == (dim or 5)
        assert_same_gradients(
            (out * direction.to(dtype)).sum(),
            (expected * direction).sum(),
            [("maps", x), *head.named_parameters()],
        )


def test_defaults_of_the_thesis() -> None:
    head = EmbeddingHead(5)
    assert (head.dim, head.pool, head.normalize) == (512, "avg+max", True)
    assert not head.fc.bias.any()
    assert float(head.fc.weight.detach().std()) == pytest.approx(math.sqrt(2 / 512), rel=0.1)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("pool", ["avg", "max", "avg+max"])
def test_commutes_is_true_exactly_if_the_head_commutes(pool: str, layer_norm: bool) -> None:
    head, x, other = (
        EmbeddingHead(5, 3, pool, layer_norm=layer_norm).double(),
        *(maps(torch.float64) for _ in range(2)),
    )
    torch.nn.init.normal_(head.fc.bias)
    lam = torch.rand(3, dtype=torch.float64)
    of_mixed, mixed = head.raw(mix(x, other, lam)), mix(head.raw(x), head.raw(other), lam)
    assert head.commutes == (pool == "avg" and not layer_norm)
    assert torch.allclose(of_mixed, mixed, atol=1e-9) == head.commutes


def test_one_example_and_maps_of_any_size() -> None:
    head = EmbeddingHead(5, 3)
    for shape in ((1, 5, 1, 1), (2, 5, 7, 7)):
        x = torch.randn(shape)
        assert_near(head.raw(x), by_hand(head, x, "avg+max", False))


def test_under_autocast_the_linear_layer_is_in_half_precision() -> None:
    head, x = EmbeddingHead(5, 3), maps()
    with torch.autocast("cpu", torch.bfloat16):
        raw, out = head.raw(x), head(x)
    assert raw.dtype == torch.bfloat16
    assert_close(out.float(), head(x), atol=0.03, rtol=0.03)


def test_maps_are_not_edited() -> None:
    x = maps()
    before = x.detach().clone()
    EmbeddingHead(5, 3, layer_norm=True)(x).sum().backward()
    assert torch.equal(x.detach(), before)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"pool": "gem"}, "pool in .*'avg', 'max', 'avg.max'.*got 'gem'"),
        ({"in_channels": 0}, "widths >= 1, got 0 and 512"),
        ({"dim": 0}, "widths >= 1, got 5 and 0"),
    ],
)
def test_settings_that_are_not_allowed(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"EmbeddingHead needs {message}"):
        EmbeddingHead(**{"in_channels": 5, **setting})
