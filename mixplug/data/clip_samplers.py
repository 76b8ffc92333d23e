"""Which clips, or images, of an epoch are drawn on which rank.

What a clip shows depends on (seed, epoch, index) alone, and a data set that draws for itself must
be told the epoch. Its workers may be alive since the first one, so the epoch comes with the index:
:class:`ClipSampler` yields ``epoch * len(dataset) + index``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from mixplug import sampling


def generators(seed: int, epoch: int, index: int = 0) -> sampling.Generators:
    """The sources of data: of an epoch, and of one of its items."""
    return sampling.generators(sampling.derive_seed(seed, sampling.DATA), epoch, index)


class ClipSampler(Sampler[int]):
    """Keys ``epoch * len(dataset) + index`` of :class:`mixplug.data.clips.VideoClips`.

    All ranks have equally many; to come to that, the first ones are drawn twice. ``dataset.group``
    consecutive indices, where the data set has that attribute, stay together, as far as ranks with
    equal numbers allow.

    Args:
        dataset: of which the length counts, and ``group``.
        seed: equal on all ranks.
        rank: of this process, in [0, world).
        world: number of processes.
        shuffle: whether groups come in a random order. What clips show is random anyway.

    Raises:
        ValueError: an empty data set, or a rank that is not in [0, world).
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
            raise ValueError("ClipSampler needs a data set that is not empty.")
        self.dataset, self.seed, self.epoch = dataset, seed, 0
        self.rank, self.world, self.shuffle = rank, world, shuffle

    def set_epoch(self, epoch: int) -> None:
        """Draw what belongs to ``epoch`` from the next iteration on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.world)

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset)
        return (first + index for index in self._indices())

    def _indices(self) -> list[int]:
        """Those of this rank."""
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
