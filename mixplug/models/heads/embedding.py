"""From the last feature map to an embedding, as the field does it (section 4.4.1)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.functional.pooling import AVERAGE, MAXIMUM, Pool

POOLS: dict[str, tuple[Pool, ...]] = {
    "avg": (AVERAGE,),
    "max": (MAXIMUM,),
    "avg+max": (AVERAGE, MAXIMUM),
}


class EmbeddingHead(nn.Module):
    """Pooling, a linear layer, and ℓ2 normalization: maps (B, C, H, W) to embeddings (B, D).

    Args:
        in_channels: C.
        dim: D; None keeps the pooled features, D = C, without a linear layer.
        pool: 'avg', 'max', or 'avg+max' for their sum, as Proxy Anchor and the thesis have it.
        normalize: whether embeddings have length 1.
        layer_norm: normalize the pooled features, without learned scale, as ProxyNCA++ does.

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
        """Embeddings before normalization."""
        return self._embed(sum(pool.plain(maps) for pool in POOLS[self.pool]))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D)."""
        return self._unit(self.raw(maps))

    def mixed(self, maps: Tensor, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
        """Embeddings (V, D) of mixed maps, of which none is held; V x C values are.

        Args:
            maps: (B, C, H, W).
            first: indices (V,) of what is mixed.
            second: and with what.
            lam: λ (V,), the weight of the first.
        """
        pools = POOLS[self.pool]
        return self._unit(self._embed(sum(pool.mixed(maps, first, second, lam) for pool in pools)))

    def _embed(self, pooled: Any) -> Tensor:
        embeddings: Tensor = self.fc(self.norm(pooled))
        return embeddings

    def _unit(self, raw: Tensor) -> Tensor:
        return F.normalize(raw, dim=1) if self.normalize else raw
