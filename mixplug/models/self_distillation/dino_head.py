"""The projection head of DINO: the softmax of its outputs is a distribution over K outputs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_OTHER_NAMES = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


def own_name(name: str) -> str:
    """The name of a tensor in this package, given a name of torch's parametrizations."""
    for other, own in _OTHER_NAMES.items():
        name = name.replace(other, own)
    return name


class WeightNormLinear(nn.Module):
    """A linear layer without bias whose K rows are normalized, ``weight = g v / |v|``.

    Its parameters are ``weight_g`` (K, 1) and ``weight_v`` (K, D), as in checkpoints of DINO and
    DoRA. The names of ``torch.nn.utils.parametrizations.weight_norm`` are loaded too:
    ``parametrizations.weight.original0`` and ``original1``.

    Args:
        in_dim: D.
        out_dim: K.
        fixed_length: whether g stays 1, so that only directions are learned.
    """

    def __init__(self, in_dim: int, out_dim: int, fixed_length: bool = True) -> None:
        super().__init__()
        bound = in_dim**-0.5
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1), requires_grad=not fixed_length)
        self.weight_v = nn.Parameter(torch.empty(out_dim, in_dim).uniform_(-bound, bound))

    @property
    def weight(self) -> Tensor:
        """(K, D)."""
        return torch._weight_norm(self.weight_v, self.weight_g, 0)  # fused, as in parametrizations

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., K)."""
        return F.linear(x, self.weight)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for other in [name for name in state_dict if name.startswith(prefix)]:
            state_dict[own_name(other)] = state_dict.pop(other)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class DINOHead(nn.Module):
    """MLP with GELU, ℓ2 normalization, and a linear layer with normalized rows.

    With rows of length 1 the logits are cosines.

    Args:
        in_dim: D, width of a token.
        out_dim: K.
        hidden: width of the MLP.
        bottleneck: width of the output of the MLP, which is normalized.
        layers: number of layers of the MLP, >= 1.
        norm_last_layer: whether the K rows keep length 1, which is more stable.

    Raises:
        ValueError: a width or the number of layers is below 1.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        layers: int = 3,
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__()
        if min(in_dim, out_dim, hidden, bottleneck, layers) < 1:
            raise ValueError(
                f"DINOHead needs widths and layers >= 1, got in_dim={in_dim}, out_dim={out_dim}, "
                f"hidden={hidden}, bottleneck={bottleneck}, layers={layers}."
            )
        self.out_dim = out_dim
        widths = [in_dim, *[hidden] * (layers - 1), bottleneck]
        parts: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            parts += [_linear(wide, narrow), nn.GELU()]
        # A single layer is no Sequential in DINO's checkpoints either; names stay the same.
        self.mlp = parts[0] if layers == 1 else nn.Sequential(*parts[:-1])
        self.last_layer = WeightNormLinear(bottleneck, out_dim, norm_last_layer)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to logits (..., K)."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


def _linear(wide: int, narrow: int) -> nn.Linear:
    layer = nn.Linear(wide, narrow)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
