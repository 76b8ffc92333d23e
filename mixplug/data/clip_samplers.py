"""Samplers that divide the clips or images of an epoch among ranks.

The content of a clip depends on (seed, epoch, index) alone, so the data set must know the epoch.
Its workers may stay alive between epochs. The sampler therefore sends the epoch with the index:
:class:`ClipSampler` yields ``epoch * len(dataset) + index``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from mixplug import sampling


def generators(seed: int, epoch: int, index: int = 0) -> sampling.Generators:
    """Random generators for the data of an epoch (index 0) or for one item of the epoch."""
    return sampling.generators(sampling.derive_seed(seed, sampling.DATA), epoch, index)


class ClipSampler(Sampler[int]):
    """Keys ``epoch * len(dataset) + index`` for :class:`mixplug.data.clips.VideoClips`.

    All ranks get the same number of keys. If the length is not divisible by ``world``, the first
    indices of the order are drawn again. If the data set has an attribute ``group``, that many
    consecutive indices stay together, as far as equal numbers per rank allow.

    Args:
        dataset: data set; only its length and ``group`` are read.
        seed: seed, equal on all ranks.
        rank: rank of this process, in [0, world).
        world: number of processes.
        shuffle: whether groups come in random order. The content of a clip is random in any case.

    Raises:
        ValueError: an empty data set, or a rank outside [0, world).
    """

    def __init__(
        self,
        dataset: Sized,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"A sampler needs 0 <= rank < world, got rank={rank}, world={world}.")
        if not len(dataset):
            raise ValueError("ClipSampler needs a data set with at least one item, got 0.")
        self.dataset, self.seed, self.epoch = dataset, seed, 0
        self.rank, self.world, self.shuffle = rank, world, shuffle

    def set_epoch(self, epoch: int) -> None:
        """Use ``epoch`` for the random draws from the next iteration on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.world)

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset)
        return (first + index for index in self._indices())

    def _indices(self) -> list[int]:
        """Indices of this rank in the current epoch."""
        size, group = len(self.dataset), getattr(self.dataset, "group", 1)
        starts = torch.arange(0, size, group)
        if self.shuffle:
            source = generators(self.seed, self.epoch).synced
            starts = starts[sampling.permutation(len(starts), source)]
        order = (starts[:, None] + torch.arange(group)).flatten()
        order = order[order < size]
        order = order[torch.arange(len(self) * self.world) % size]
        mine: list[int] = order.view(self.world, -1)[self.rank].tolist()
        return mine
