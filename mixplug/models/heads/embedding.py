"""Embedding head for metric learning: from the last feature map to an embedding (§4.4.1)."""

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
    """Pooling, linear layer and ℓ2 normalization: maps (B, C, H, W) to embeddings (B, D).

    Args:
        in_channels: number C of channels of the maps.
        dim: width D of the embedding. None omits the linear layer, so D = C.
        pool: 'avg', 'max', or 'avg+max' for the sum of both, as in Proxy Anchor and the thesis.
        normalize: whether to ℓ2-normalize embeddings.
        layer_norm: whether to apply layer norm without learned parameters to the pooled features,
            as in ProxyNCA++.

    Raises:
        ValueError: an unknown ``pool``, or a width below 1.
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
        """Whether :meth:`raw` commutes with mixing, since all its layers are linear."""
        return self.pool == "avg" and isinstance(self.norm, nn.Identity)

    def raw(self, maps: Tensor) -> Tensor:
        """Embeddings (B, D) before normalization."""
        return self._embed(sum(pool.plain(maps) for pool in POOLS[self.pool]))

    def forward(self, maps: Tensor) -> Tensor:
        """Map feature maps (B, C, H, W) to embeddings (B, D)."""
        return self._unit(self.raw(maps))

    def mixed(self, maps: Tensor, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
        """Embeddings (V, D) of mixed maps. No mixed map is stored, only V x C pooled values.

        Args:
            maps: (B, C, H, W).
            first: indices of the first maps, (V,).
            second: indices of the second maps, (V,).
            lam: λ, (V,), the weight of the first map.
        """
        pools = POOLS[self.pool]
        return self._unit(self._embed(sum(pool.mixed(maps, first, second, lam) for pool in pools)))

    def _embed(self, pooled: Any) -> Tensor:
        embeddings: Tensor = self.fc(self.norm(pooled))
        return embeddings

    def _unit(self, raw: Tensor) -> Tensor:
        return F.normalize(raw, dim=1) if self.normalize else raw
