"""Global pooling of feature maps, and of mixed maps without building them.

Letters: B maps with C channels and H x W positions, V mixed pairs of maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.functional.aligned import mix

_IN_CACHE = 1 << 18  # elements of mixed maps held at a time: 1 MiB of float32


def average(maps: Tensor) -> Tensor:
    """Global average pooling: (B, C, H, W) to (B, C)."""
    # Dividing after the sum makes the gradient divide a (B, C) tensor instead of the map.
    return maps.flatten(2).sum(-1) / maps[0, 0].numel()


def maximum(maps: Tensor) -> Tensor:
    """Global max pooling: (B, C, H, W) to (B, C). Faster than adaptive pooling to 1 x 1."""
    return maps.flatten(2).max(-1).values


def mixed_average(maps: Tensor, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    r"""Average over positions of the mixed maps :math:`\lambda A_i + (1 - \lambda) A_j`.

    It equals the mixture of the averages of :math:`A_i` and :math:`A_j`.

    Args:
        maps: A, (B, C, H, W).
        first: indices i, (V,).
        second: indices j, (V,).
        lam: λ, (V,), the weight of the first map.

    Returns:
        (V, C).
    """
    averages = average(maps)
    return mix(averages.index_select(0, first), averages.index_select(0, second), lam)


def mixed_maximum(maps: Tensor, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    r"""Maximum over positions of the mixed maps :math:`\lambda A_i + (1 - \lambda) A_j`, exactly.

    The position of the maximum is found without gradient, for some pairs at a time. The values of
    both maps at this position are then gathered and mixed. So no mixed map is stored, and the
    gradient, which reaches only these values, costs V x C instead of V x C x H x W.

    Args:
        maps: A, (B, C, H, W).
        first: indices i, (V,).
        second: indices j, (V,).
        lam: λ, (V,), the weight of the first map.

    Returns:
        (V, C).
    """
    channels, positions = maps.shape[1], maps[0, 0].numel()
    count = max(1, _IN_CACHE // (channels * positions))
    columns = maps.detach().flatten(2)
    chunks = zip(first.split(count), second.split(count), lam.split(count), strict=True)
    offset = torch.cat([mix(columns[i], columns[j], part).argmax(-1) for i, j, part in chunks])
    offset += positions * torch.arange(channels, device=maps.device)
    flat, size = maps.flatten(), channels * positions
    return mix(
        flat.take(offset + size * first[:, None]), flat.take(offset + size * second[:, None]), lam
    )


@dataclass(frozen=True)
class Pool:
    """A global pooling operation.

    Attributes:
        plain: pooling of maps, (B, C, H, W) to (B, C).
        mixed: pooling of mixed maps: takes maps (B, C, H, W), ``first``, ``second`` and ``lam``
            (V,), and returns (V, C), the same as ``plain`` of the mixed maps.
    """

    plain: Callable[[Tensor], Tensor]
    mixed: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


AVERAGE, MAXIMUM = Pool(average, mixed_average), Pool(maximum, mixed_maximum)
