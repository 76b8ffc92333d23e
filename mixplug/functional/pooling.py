"""Global pooling of maps, and of mixed maps that are not held.

Letters: B maps of C channels and H x W positions, V pairs of them that are mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.functional.aligned import mix

_IN_CACHE = 1 << 18  # elements of mixed maps at a time: 1 MiB of float32


def average(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C)."""
    return maps.flatten(2).sum(-1) / maps[0, 0].numel()  # its gradient divides (B, C), not the map


def maximum(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C); faster than adaptive pooling to one position."""
    return maps.flatten(2).max(-1).values


def mixed_average(maps: Tensor, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    r"""Average of :math:`\lambda A_i + (1 - \lambda) A_j`: the mixture of the averages.

    Args:
        maps: A (B, C, H, W).
        first: i, (V,).
        second: j, (V,).
        lam: λ (V,), the weight of the first.

    Returns:
        (V, C).
    """
    averages = average(maps)
    return mix(averages.index_select(0, first), averages.index_select(0, second), lam)


def mixed_maximum(maps: Tensor, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    r"""Maximum over positions of :math:`\lambda A_i + (1 - \lambda) A_j`, exactly.

    Where the maximum lies is found some pairs at a time and without a graph; the two values that
    lie there are then picked out of the maps and mixed. So no mixed map is held, and the gradient,
    which goes to those two positions alone, costs V x C and not V x C x H x W.

    Args:
        maps: A (B, C, H, W).
        first: i, (V,).
        second: j, (V,).
        lam: λ (V,), the weight of the first.

    Returns:
        (V, C).
    """
    channels, positions = maps.shape[1], maps[0, 0].numel()
    count = max(1, _IN_CACHE // (channels * positions))
    columns = maps.detach().flatten(2)
    chunks = zip(first.split(count), second.split(count), lam.split(count), strict=True)
    place = torch.cat([mix(columns[i], columns[j], some).argmax(-1) for i, j, some in chunks])
    place += positions * torch.arange(channels, device=maps.device)
    flat, size = maps.flatten(), channels * positions
    return mix(
        flat.take(place + size * first[:, None]), flat.take(place + size * second[:, None]), lam
    )


@dataclass(frozen=True)
class Pool:
    """A way of pooling.

    Attributes:
        plain: maps (B, C, H, W) to (B, C).
        mixed: maps, first, second and λ (V,) to (V, C), equal to ``plain`` of the mixed maps.
    """

    plain: Callable[[Tensor], Tensor]
    mixed: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


AVERAGE, MAXIMUM = Pool(average, mixed_average), Pool(maximum, mixed_maximum)
