"""The head against its formula, and the names that checkpoints have."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from reference.compare import assert_near
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close

from mixplug.models.self_distillation.dino_head import DINOHead, WeightNormLinear

SMALL = {"in_dim": 6, "out_dim": 7, "hidden": 5, "bottleneck": 4}


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_by_hand(layers: int, dtype: torch.dtype) -> None:
    head = DINOHead(**SMALL, layers=layers, norm_last_layer=False).to(dtype)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 6, dtype=dtype)
    linears = [m for m in head.mlp.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == layers
    rows = []
    for row in x.double():
        for i, layer in enumerate(linears):
            row = torch.stack([w @ row for w in doubled(layer.weight)]) + doubled(layer.bias)
            if i < layers - 1:
                row = torch.tensor([gelu(float(v)) for v in row], dtype=torch.float64)
        row = row / row.square().sum().sqrt()
        v, g = doubled(head.last_layer.weight_v), doubled(head.last_layer.weight_g)
        rows.append(torch.stack([g[k, 0] * v[k] @ row / v[k].norm() for k in range(7)]))
    found = head(x)
    assert found.dtype == dtype
    assert_near(found, torch.stack(rows))


def doubled(t: torch.Tensor) -> torch.Tensor:
    return t.detach().double()


def test_logits_are_cosines() -> None:
    head = DINOHead(**SMALL)
    assert_close(head.last_layer.weight.norm(dim=1), torch.ones(7))
    assert float(head(100 * torch.randn(50, 6)).detach().abs().max()) <= 1 + 1e-6
    assert head(torch.randn(2, 3, 6)).shape == (2, 3, 7)
    before = head.last_layer.weight_g
    head(torch.randn(3, 6)).sum().backward()
    assert before.grad is None and not before.requires_grad
    free = DINOHead(**SMALL, norm_last_layer=False)
    free(torch.randn(3, 6)).sum().backward()
    assert free.last_layer.weight_g.grad.shape == (7, 1)


def test_a_step_keeps_the_length_of_rows() -> None:
    head = DINOHead(**SMALL)
    optimizer = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=5.0)
    head(torch.randn(3, 6))[:, 0].sum().backward()
    before = head.last_layer.weight.detach()
    optimizer.step()
    assert not torch.allclose(head.last_layer.weight, before)
    assert_close(head.last_layer.weight.norm(dim=1), torch.ones(7))


def test_it_begins_as_dino_does() -> None:
    head = DINOHead(in_dim=384)
    assert (head.out_dim, head.last_layer.weight_v.shape) == (65536, (65536, 256))
    assert [tuple(m.weight.shape) for m in head.mlp[::2]] == [
        (2048, 384),
        (2048, 2048),
        (256, 2048),
    ]
    for layer in head.mlp[::2]:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not layer.bias.any()


def test_names_are_those_of_dino() -> None:
    assert set(DINOHead(**SMALL).state_dict()) == {
        "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias", "mlp.4.weight", "mlp.4.bias",
        "last_layer.weight_g", "last_layer.weight_v",
    }  # fmt: skip
    assert set(DINOHead(**SMALL, layers=1).state_dict()) == {
        "mlp.weight", "mlp.bias", "last_layer.weight_g", "last_layer.weight_v",
    }  # fmt: skip


def test_names_of_parametrizations_are_read_too() -> None:
    theirs = weight_norm(nn.Linear(4, 7, bias=False))
    nn.init.normal_(theirs.parametrizations.weight.original0)
    ours, x = WeightNormLinear(4, 7), torch.randn(3, 4)
    state = theirs.state_dict()
    assert set(state) == {"parametrizations.weight.original0", "parametrizations.weight.original1"}
    assert str(ours.load_state_dict(state)) == "<All keys matched successfully>"
    assert_close(ours(x), theirs(x))
    head = DINOHead(**SMALL)
    whole = {f"last_layer.{name}": value for name, value in state.items()}
    rest = {k: v for k, v in head.state_dict().items() if k.startswith("mlp")}
    assert str(head.load_state_dict({**rest, **whole})) == "<All keys matched successfully>"
    assert torch.equal(head.last_layer.weight_v, theirs.parametrizations.weight.original1)


def test_it_can_be_copied_and_sent() -> None:
    head, x = DINOHead(**SMALL), torch.randn(3, 6)
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(other(x), head(x))


@pytest.mark.parametrize("key", ["in_dim", "out_dim", "hidden", "bottleneck", "layers"])
def test_widths_below_one(key: str) -> None:
    with pytest.raises(ValueError, match=f"DINOHead needs widths and layers >= 1, got .*{key}=0"):
        DINOHead(**{**SMALL, key: 0})
