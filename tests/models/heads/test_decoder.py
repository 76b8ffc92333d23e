"""The decoder against its formula, its start grids, and the initial variance head."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from mixplug.models.heads.decoder import GaussianHead, ResidualDecoder, UpsampleBlock, start_grid


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        (32, 32, (4, 4, 3)),
        (64, 64, (4, 4, 4)),
        (224, 224, (7, 7, 5)),
        (8, 8, (4, 4, 1)),
        (7, 7, (7, 7, 0)),
        (32, 64, (2, 4, 4)),
    ],
)
def test_start_grids_by_hand(height: int, width: int, grid: tuple[int, int, int]) -> None:
    assert start_grid(height, width) == grid


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 28, 28), [3, 16, 32]])
def test_the_image_has_the_requested_shape(shape: tuple[int, int, int]) -> None:
    decoder = ResidualDecoder(5, shape, width=4)
    assert decoder(torch.randn(2, 5)).shape == (2, *shape)
    assert decoder.eval()(torch.randn(1, 5)).shape == (1, *shape)


def test_parameter_count_by_hand() -> None:
    linear = 512 * 128 * 16 + 128 * 16
    block = 2 * (2 * 128 + 9 * 128 * 128)
    end = 2 * 128 + 9 * 128 * 3 + 3
    assert sum(p.numel() for p in ResidualDecoder(512).parameters()) == linear + 3 * block + end


def naive_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    unit = (x - mean) / (var + norm.eps) ** 0.5
    return unit * norm.weight[:, None, None] + norm.bias[:, None, None]


def naive_double(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


def naive_decode(e: Tensor, decoder: ResidualDecoder) -> Tensor:
    x = (e @ decoder.linear.weight.T + decoder.linear.bias).reshape(len(e), *decoder.start)
    for block in decoder.blocks:
        h = naive_double(naive_norm(x, block.norm1).clamp(min=0))
        h = naive_norm(F.conv2d(h, block.conv1.weight, padding=1), block.norm2).clamp(min=0)
        x = naive_double(x) + F.conv2d(h, block.conv2.weight, padding=1)
    x = naive_norm(x, decoder.norm).clamp(min=0)
    return F.conv2d(x, decoder.conv.weight, decoder.conv.bias, padding=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoder_is_the_formula_with_gradients(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    decoder = ResidualDecoder(6, (2, 16, 16), width=3).to(dtype)
    for norm in (m for m in decoder.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    e = torch.randn(4, 6, dtype=dtype, requires_grad=True)
    leaves = [e, *decoder.parameters()]
    ours, naive = decoder(e), naive_decode(e, decoder)
    assert_close(ours, naive, rtol=1e-4, atol=1e-4)
    seed = torch.randn_like(ours)
    grads = (torch.autograd.grad(image, leaves, seed) for image in (ours, naive))
    for a, b in zip(*grads, strict=True):
        assert a.isfinite().all()
        assert_close(a, b, rtol=1e-3 if dtype == torch.float32 else 1e-8, atol=1e-3)


def test_a_block_with_a_silent_branch_is_nearest_upsampling() -> None:
    block, x = UpsampleBlock(3), torch.randn(2, 3, 4, 4)
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), naive_double(x))


def test_the_output_is_not_squashed() -> None:
    decoder = ResidualDecoder(4, (1, 8, 8), width=2).eval()
    e = torch.randn(1, 4)
    nn.init.zeros_(decoder.conv.weight)
    nn.init.constant_(decoder.conv.bias, 5.0)
    image = decoder(e)
    assert torch.equal(image, torch.full((1, 1, 8, 8), 5.0))


def test_the_decoder_can_fit_images() -> None:
    torch.manual_seed(0)
    decoder = ResidualDecoder(8, (1, 8, 8), width=16)
    e, x = torch.eye(4, 8), torch.randn(4, 1, 8, 8)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(decoder(e), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * x.var().item() < losses[0]


def test_variance_starts_small_and_equal_for_all_and_can_learn() -> None:
    head = GaussianHead(6)
    e = torch.randn(3, 6, requires_grad=True)
    log_var = head(e)
    assert torch.equal(log_var, torch.full((3, 6), -4.0))
    assert math.isclose(math.exp(-4 / 2), 0.1353, rel_tol=1e-3)
    # the initial gradient of the KL term, (sigma^2 - 1) / 2 per element, does not vanish
    (0.5 * (log_var.exp() - log_var)).sum().backward()
    assert_close(head.log_var.bias.grad, torch.full((6,), 3 * (math.exp(-4) - 1) / 2))
    assert head.log_var.weight.grad is not None and head.log_var.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ResidualDecoder(4, (3, 36, 36)), r"or 224\. Halving 36x36 stops at 9x9"),
        (lambda: ResidualDecoder(4, (3, 8, 9)), r"Halving 8x9 stops at 8x9\."),
        (lambda: ResidualDecoder(4, (32, 32)), r"must be \(C, H, W\), each >= 1, got \(32, 32\)"),
        (lambda: ResidualDecoder(0), r"must be >= 1, got embed_dim=0, width=128"),
        (lambda: GaussianHead(0), r"embed_dim must be >= 1, got embed_dim=0"),
        (
            lambda: ResidualDecoder(4, (3, 8, 8), 2)(torch.zeros(2, 5)),
            r"needs embeddings \(B, 4\), got \(2, 5\)",
        ),
    ],
)
def test_wrong_values_say_what_is_allowed(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
