"""Samplers for metric learning: they give batches in which each anchor has a positive.

Random draws depend on (seed, epoch, rank) alone, so a run that resumes at an epoch continues as if
it had not stopped. For plain random order, use the samplers of torch and mmengine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from mixplug import sampling

_BEFORE_TRAINING = -1  # a step that no mixer uses, because training steps count from 0


class KeyedSampler(Sampler[int]):
    """Base class of the two samplers: labels, rank and epoch.

    Args:
        labels: (B,) class of each example, integers of any value.
        seed: seed, equal on all ranks.
        rank: rank of this process, in [0, world).
        world: number of processes.

    Attributes:
        members: for each class, the indices of its examples in order; classes are sorted by label.

    Raises:
        ValueError: labels that are not integers, or a rank outside [0, world).
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
        """Use ``epoch`` for the random draws from the next iteration on."""
        self.epoch = epoch

    def generators(self) -> sampling.Generators:
        """Generators for this epoch: one is equal on all ranks, the other is for this rank alone.

        They are computed from ``seed`` at each call, because a resumed run without a configured
        seed sets ``seed`` after construction.
        """
        key = sampling.key(sampling.generators(self.seed, _BEFORE_TRAINING).synced)
        return sampling.generators(key, self.epoch, self.rank)


class MPerClassSampler(KeyedSampler):
    """Batches of ``batch_size / m`` classes with ``m`` examples of each (4.4.1, Table 4.2).

    The sampler yields indices, so the ``batch_size`` of the DataLoader must equal the one given
    here. The thesis uses 20 classes of 5 examples for SOP and In-Shop. For each batch, classes are
    drawn with equal probability, and examples without replacement. A class with fewer than ``m``
    examples repeats all of them until there are ``m``; so an example that is alone in its class is
    its own positive.

    In one step, ranks use disjoint classes as long as there are enough. Ranks draw examples
    independently, so ranks that share a class get different examples.

    Args:
        labels: (B,) class of each example, integers of any value.
        m: number of examples of each class in a batch.
        batch_size: batch size of one rank.
        seed: seed, equal on all ranks.
        rank: rank of this process, in [0, world).
        world: number of processes.
        length: number of examples of an epoch over all ranks; incomplete batches are dropped. None
            uses the number of labels, but at least one batch per rank.

    Raises:
        ValueError: m < 2 (no positive pairs), a batch size that is not a multiple of m, fewer
            classes than a batch needs, a length of less than one batch per rank, and the errors of
            KeyedSampler.
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
                f"MPerClassSampler needs a batch_size that is a multiple of m, got "
                f"batch_size={batch_size}, m={m}."
            )
        if len(self.members) * m < batch_size:
            raise ValueError(
                f"A batch of {batch_size} with m={m} needs {batch_size // m} classes, but the "
                f"labels have {len(self.members)}."
            )
        self.m, self.batch_size = m, batch_size
        self.batches = (len(labels) if length is None else length) // (batch_size * world)
        if length is None:
            self.batches = max(self.batches, 1)
        if self.batches < 1:
            raise ValueError(
                f"An epoch needs length >= {batch_size * world} (one batch per rank), got {length}."
            )

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        draws = self.generators()
        for _ in range(self.batches):
            for label in self._batch_classes(draws.synced):
                yield from _examples(self.members[label], self.m, draws.local)

    def _batch_classes(self, source: torch.Generator) -> list[int]:
        """This rank's classes: its part of a permutation that several ranks share.

        One permutation serves as many ranks as it has disjoint parts; further ranks use another
        one.
        """
        part = self.batch_size // self.m
        ranks = len(self.members) // part  # number of ranks that one permutation can serve
        permutations = [
            sampling.permutation(len(self.members), source) for _ in range(-(-self.world // ranks))
        ]
        first = self.rank % ranks * part
        own: list[int] = permutations[self.rank // ranks][first : first + part].tolist()
        return own


class ClassBalancedSampler(KeyedSampler):
    """Examples of uniformly drawn classes: an example has probability 1 / (K · size of its class).

    Draws are independent and with replacement, so the examples of rare classes repeat. Each rank
    draws independently.

    Args:
        labels: (B,) class of each example, integers of any value.
        seed: seed, equal on all ranks.
        rank: rank of this process, in [0, world).
        world: number of processes.
        length: number of examples of an epoch over all ranks, rounded up to a multiple of
            ``world``; None uses the number of labels.

    Raises:
        ValueError: length < 1, and the errors of KeyedSampler.
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
    """Labels as (B,) int64 from 0 to K - 1, sorted by their values."""
    try:
        given = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"Labels must be integers, one per example: {error}.") from error
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise ValueError(f"Labels must be integers, got {given.dtype}.")
    if given.ndim != 1 or not len(given):
        raise ValueError(f"Labels must have shape (B,) with B > 0, got {tuple(given.shape)}.")
    return given.cpu().unique(return_inverse=True)[1]


def _examples(members: Tensor, m: int, source: torch.Generator) -> list[int]:
    """Draw ``m`` members; the number of times that two members occur differs by at most one."""
    rounds = [sampling.permutation(len(members), source) for _ in range(-(-m // len(members)))]
    chosen: list[int] = members[torch.cat(rounds)[:m]].tolist()
    return chosen
