"""Samplers for metric learning: batches in which an anchor finds a positive.

What is drawn depends on (seed, epoch, rank) alone: a run that is resumed at an epoch goes on as if
it had not stopped. Drawing at random needs no sampler of ours: torch's and mmengine's own do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from mixplug import sampling

_BEFORE_TRAINING = -1  # a step that no mixer ever draws in: theirs count from 0


class KeyedSampler(Sampler[int]):
    """What the two samplers share: labels, this process' place among others, and the epoch.

    Args:
        labels: (B,) the class of every example, integers of any values.
        seed: equal on all ranks.
        rank: of this process, in [0, world).
        world: number of processes.

    Attributes:
        members: per class, the indices of its examples, in order; classes in order of their labels.

    Raises:
        ValueError: labels that are no integers, or a rank that is not in [0, world).
    """

    def __init__(
        self, labels: Sequence[int] | Tensor, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"A sampler needs 0 <= rank < world, got rank={rank}, world={world}.")
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0
        classes = _classes(labels)
        sizes = classes.bincount()
        self.members = list(classes.argsort(stable=True).split(sizes.tolist()))

    def set_epoch(self, epoch: int) -> None:
        """Draw what belongs to ``epoch`` from the next iteration on."""
        self.epoch = epoch

    def generators(self) -> sampling.Generators:
        """The sources of this epoch, equal on all ranks and of this rank.

        They follow ``seed``, which a resumed run that had none set puts right before it goes on.
        """
        key = sampling.key(sampling.generators(self.seed, _BEFORE_TRAINING).synced)
        return sampling.generators(key, self.epoch, self.rank)


class MPerClassSampler(KeyedSampler):
    """Batches of ``batch_size / m`` classes with ``m`` examples of each (4.4.1, Table 4.2).

    It yields indices, so the DataLoader's ``batch_size`` is to be this one's. The thesis takes 20
    classes of 5 examples for SOP and In-Shop. Classes are drawn afresh for every batch, each with
    equal probability, and examples without replacement; a class that has fewer than ``m`` gives all
    of its examples again and again until there are ``m``, so an only one is its own positive.

    In a step, ranks train on disjoint classes as long as there are enough. Their draws of examples
    are independent, so ranks that have to share a class still differ.

    Args:
        labels: (B,) the class of every example, integers of any values.
        m: examples of each class in a batch.
        batch_size: of one rank.
        seed: equal on all ranks.
        rank: of this process, in [0, world).
        world: number of processes.
        length: examples of an epoch over all ranks, of which incomplete batches are left out; None
            is as many as there are labels, but one batch at least.

    Raises:
        ValueError: m < 2 (no positive pairs), a batch size that m does not divide, fewer classes
            than a batch takes, a length without one batch per rank, and see KeyedSampler.
    """

    def __init__(
        self,
        labels: Sequence[int] | Tensor,
        m: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        length: int | None = None,
    ) -> None:
        super().__init__(labels, seed, rank, world)
        if m < 2:
            raise ValueError(f"MPerClassSampler needs m >= 2 to have positive pairs, got m={m}.")
        if batch_size < m or batch_size % m:
            raise ValueError(
                f"MPerClassSampler needs a batch_size that m divides, got batch_size={batch_size}, "
                f"m={m}."
            )
        if len(self.members) * m < batch_size:
            raise ValueError(
                f"A batch of {batch_size} with m={m} takes {batch_size // m} classes, but there "
                f"are {len(self.members)}."
            )
        self.m, self.batch_size = m, batch_size
        self.batches = (len(labels) if length is None else length) // (batch_size * world)
        if length is None:
            self.batches = max(self.batches, 1)
        if self.batches < 1:
            raise ValueError(
                f"An epoch needs length >= {batch_size * world}, one batch per rank, got {length}."
            )

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        draws = self.generators()
        for _ in range(self.batches):
            for label in self._batch_classes(draws.synced):
                yield from _examples(self.members[label], self.m, draws.local)

    def _batch_classes(self, source: torch.Generator) -> list[int]:
        """This rank's part of a permutation of the classes; when it is used up, of another one."""
        part = self.batch_size // self.m
        ranks = len(self.members) // part  # that one permutation can serve
        permutations = [
            sampling.permutation(len(self.members), source) for _ in range(-(-self.world // ranks))
        ]
        first = self.rank % ranks * part
        own: list[int] = permutations[self.rank // ranks][first : first + part].tolist()
        return own


class ClassBalancedSampler(KeyedSampler):
    """Examples of uniformly drawn classes: an example's probability is 1 / (K · its class' size).

    Draws are independent, with replacement, so rare classes repeat their examples. Each rank draws
    on its own.

    Args:
        labels: (B,) the class of every example, integers of any values.
        seed: equal on all ranks.
        rank: of this process, in [0, world).
        world: number of processes.
        length: examples of an epoch over all ranks, rounded up to a multiple of ``world``; None is
            as many as there are labels.

    Raises:
        ValueError: length < 1, and see KeyedSampler.
    """

    def __init__(
        self,
        labels: Sequence[int] | Tensor,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        length: int | None = None,
    ) -> None:
        super().__init__(labels, seed, rank, world)
        length = len(labels) if length is None else length
        if length < 1:
            raise ValueError(f"ClassBalancedSampler needs length >= 1, got {length}.")
        self.length = -(-length // world)
        self.weights = torch.empty(len(labels), dtype=torch.float64)
        for members in self.members:
            self.weights[members] = 1 / len(members)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        source = self.generators().local
        yield from sampling.weighted(self.weights, self.length, source).tolist()


def _classes(labels: Sequence[int] | Tensor) -> Tensor:
    """Labels as (B,) int64 from 0 to K - 1, in the order of their values."""
    try:
        given = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"Labels must be integers, one per example: {error}.") from error
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise ValueError(f"Labels must be integers, got {given.dtype}.")
    if given.ndim != 1 or not len(given):
        raise ValueError(f"Labels must be of shape (B,), B > 0, got {tuple(given.shape)}.")
    return given.cpu().unique(return_inverse=True)[1]


def _examples(members: Tensor, m: int, source: torch.Generator) -> list[int]:
    """``m`` of the members, none of them more than once oftener than another."""
    rounds = [sampling.permutation(len(members), source) for _ in range(-(-m // len(members)))]
    chosen: list[int] = members[torch.cat(rounds)[:m]].tolist()
    return chosen
