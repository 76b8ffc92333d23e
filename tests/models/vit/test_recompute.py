"""What is made again in the backward pass: nothing but memory changes."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mixplug.models.vit.recompute import recomputed


class Pair(nn.Module):
    """A norm, a linear layer, GELU, and another linear layer, with something in between."""

    def __init__(self, between: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.norm, self.first = nn.LayerNorm(6), nn.Linear(6, 8)
        self.act, self.second = act or nn.GELU(), nn.Linear(8, 6)
        self.between = between or nn.Identity()

    @property
    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.norm, self.first), (self.act, self.second)]

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.act(self.first(self.norm(x)))))


def step(model: Pair, x: Tensor, pairs: Any, bfloat: bool = False) -> list[Tensor]:
    """The output, and gradients of the input and of all parameters."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    torch.manual_seed(0)
    with recomputed(pairs), torch.autocast("cpu", torch.bfloat16, enabled=bfloat):
        out = model(x)
    out.square().sum().backward()
    assert x.grad is not None
    return [out, x.grad, *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("between", [None, nn.Dropout(0.0), nn.Dropout(0.5), nn.LayerNorm(8)])
def test_nothing_changes(between: Any, dtype: torch.dtype) -> None:
    """Bit for bit, and also where the linear layer takes something else."""
    model = Pair(between).to(dtype)
    x = torch.randn(2, 4, 6, dtype=dtype)  # as many numbers as the first weight has
    plain, lean = step(model, x, []), step(model, x, model.pairs)
    assert all(torch.equal(a, b) for a, b in zip(plain, lean, strict=True))


def test_nothing_changes_under_autocast() -> None:
    """The backward pass runs outside of it, as it does in all training loops."""
    model, x = Pair(act=nn.Linear(8, 8)), torch.randn(2, 5, 6)
    plain, lean = step(model, x, [], True), step(model, x, model.pairs, True)
    assert plain[0].dtype == torch.bfloat16
    for a, b in zip(plain, lean, strict=True):
        assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(plain[2], step(model, x, [])[2], rtol=1e-4)


@pytest.mark.parametrize(("lean", "bfloat"), [(False, False), (True, False), (True, True)])
def test_what_is_held(lean: bool, bfloat: bool) -> None:
    model, x = Pair(nn.Dropout(0.0)), torch.randn(2, 5, 6, requires_grad=True)
    made: list[Any] = []
    for layer in (model.first, model.second):
        layer.register_forward_pre_hook(lambda _, inputs: made.append(weakref.ref(inputs[0])))
    pairs = model.pairs if lean else []
    with recomputed(pairs), torch.autocast("cpu", torch.bfloat16, enabled=bfloat):
        out = model(x)
    assert [ref() is None for ref in made] == [lean, lean]
    again: list[nn.Module] = []
    for layer in (model.norm, model.act):
        layer.forward = lambda x, of=layer: again.append(of) or type(of).forward(of, x)
    out.sum().backward()
    assert again == ([model.act, model.norm] if lean else [])


def test_layers_that_work_in_place_are_left_alone() -> None:
    model, x = Pair(act=nn.ReLU(inplace=True)), torch.randn(2, 5, 6)
    plain, lean = step(model, x, []), step(model, x, model.pairs)
    assert all(torch.equal(a, b) for a, b in zip(plain, lean, strict=True))


def test_an_input_that_was_changed_is_noticed() -> None:
    model, x = Pair(), torch.randn(2, 5, 6, requires_grad=True)
    y = x * 1
    with recomputed(model.pairs):
        out = model(y)
    y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_nothing_is_left_behind_by_an_error() -> None:
    model, x = Pair(), torch.randn(2, 5, 7, requires_grad=True)
    model.norm = nn.LayerNorm(7)  # the linear layer fails
    with recomputed(model.pairs), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(x)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    (x * x).sum().backward()


def test_a_hook_on_the_output_counts() -> None:
    """It would not run again, so the layer is left alone."""
    model, x = Pair(), torch.randn(2, 5, 6)
    model.norm.register_forward_hook(lambda _module, _inputs, out: out * 2)
    plain, lean = step(model, x, []), step(model, x, model.pairs)
    assert all(torch.equal(a, b) for a, b in zip(plain, lean, strict=True))


def test_nothing_is_left_behind_by_ctrl_c() -> None:
    class Stopped(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    model, x = Pair(), torch.randn(2, 5, 6, requires_grad=True)
    model.first = Stopped(6, 8)
    with pytest.raises(KeyboardInterrupt), recomputed(model.pairs):
        model(x)
    y = x * x
    y.grad_fn._raw_saved_self.register_hooks(lambda t: t, lambda t: t)  # raises where there are any


def test_without_gradients() -> None:
    model, x = Pair(), torch.randn(2, 5, 6)
    expected = model(x)
    with torch.no_grad(), recomputed(model.pairs):
        assert torch.equal(model(x), expected)
