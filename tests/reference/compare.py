"""One tolerance per precision, so that no test chooses its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.testing import assert_close

_TOLERANCE = {
    torch.float32: {"rtol": 2e-4, "atol": 2e-5},
    torch.float64: {"rtol": 1e-6, "atol": 1e-7},  # λ and Λ are drawn in float32
}


def assert_near(actual: Tensor, expected: Tensor, message: str = "") -> None:
    """Assert that ``actual`` equals ``expected`` to the precision of the dtype of ``actual``."""
    tolerance = _TOLERANCE[actual.dtype]
    assert_close(
        actual.detach().double(),
        expected.detach().double(),
        msg=(lambda text: f"{message}: {text}") if message else None,
        **tolerance,
    )


def assert_same_gradients(
    loss: Tensor, expected: Tensor, parameters: Sequence[tuple[str, Tensor]]
) -> None:
    """Assert that both scalars have the same value and the same gradient in every named tensor."""
    assert_near(loss, expected, "loss")
    names, tensors = zip(*parameters, strict=True)
    ours = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(expected, tensors, retain_graph=True, allow_unused=True)
    for name, mine, other, tensor in zip(names, ours, theirs, tensors, strict=True):
        zero = torch.zeros_like(tensor)
        assert_near(zero if mine is None else mine, zero if other is None else other, name)
