"""From the last feature map to an embedding, as the field does it (section 4.4.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


def average(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C)."""
    return maps.flatten(2).sum(-1) / maps[0, 0].numel()  # its gradient divides (B, C), not the map


def maximum(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C); faster than adaptive pooling to one position."""
    return maps.flatten(2).max(-1).values


POOLS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "avg": (average,),
    "max": (maximum,),
    "avg+max": (average, maximum),
}


class EmbeddingHead(nn.Module):
    """Pooling, a linear layer, and ℓ2 normalisation: maps (B, C, H, W) to embeddings (B, D).

    Args:
        in_channels: C.
        dim: D; None keeps the pooled features, D = C, without a linear layer.
        pool: 'avg', 'max', or 'avg+max' for their sum, as Proxy Anchor and the thesis have it.
        normalize: whether embeddings have length 1.
        layer_norm: normalise the pooled features, without learned scale, as ProxyNCA++ does.

    Raises:
        ValueError: another pool, or widths below 1.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int | None = 512,
        pool: str = "avg+max",
        normalize: bool = True,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"EmbeddingHead needs pool in {tuple(POOLS)}, got {pool!r}.")
        if in_channels < 1 or (dim is not None and dim < 1):
            raise ValueError(f"EmbeddingHead needs widths >= 1, got {in_channels} and {dim}.")
        self.pool, self.normalize = pool, normalize
        self.dim = dim or in_channels
        plain = nn.LayerNorm(in_channels, elementwise_affine=False)
        self.norm = plain if layer_norm else nn.Identity()
        self.fc = nn.Identity() if dim is None else nn.Linear(in_channels, dim)
        if isinstance(self.fc, nn.Linear):
            nn.init.kaiming_normal_(self.fc.weight, mode="fan_out")
            nn.init.zeros_(self.fc.bias)

    @property
    def commutes(self) -> bool:
        """Whether :meth:`raw` of a mixed map is the mixture of :meth:`raw`: all of it is linear."""
        return self.pool == "avg" and isinstance(self.norm, nn.Identity)

    def raw(self, maps: Tensor) -> Tensor:
        """Embeddings before normalisation."""
        pooled = sum(pool(maps) for pool in POOLS[self.pool])
        embeddings: Tensor = self.fc(self.norm(pooled))
        return embeddings

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D)."""
        raw = self.raw(maps)
        return F.normalize(raw, dim=1) if self.normalize else raw
