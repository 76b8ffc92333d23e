"""ClipSampler: each index once per epoch, on one rank, together with the epoch."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mixplug import sampling
from mixplug.data.clip_samplers import ClipSampler, generators
from mixplug.data.samplers import ClassBalancedSampler


class Keys(Dataset):
    """Items are their own keys."""

    def __init__(self, size: int, group: int = 1) -> None:
        self.size, self.group = size, group

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: int) -> int:
        return key


def epoch(sampler: ClipSampler, number: int) -> list[int]:
    sampler.set_epoch(number)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return drawn


@pytest.mark.parametrize(
    ("size", "world", "group", "shuffle"),
    itertools.product((1, 7, 24), (1, 2, 5), (1, 3), (False, True)),
)
def test_each_index_is_drawn_once_per_epoch(
    size: int, world: int, group: int, shuffle: bool
) -> None:
    """Over all ranks; only the padding to equal numbers per rank is drawn twice."""
    data = Keys(size, group)
    ranks = [ClipSampler(data, 3, rank, world, shuffle) for rank in range(world)]
    for number in (0, 4):
        drawn = [epoch(sampler, number) for sampler in ranks]
        assert {len(mine) for mine in drawn} == {-(-size // world)}
        keys = Counter(itertools.chain(*drawn))
        assert keys.keys() == set(range(number * size, (number + 1) * size))
        most = -(-(-(-size // world) * world) // size)
        assert max(keys.values()) <= most


def test_unshuffled_indices_are_in_order() -> None:
    assert epoch(ClipSampler(Keys(5), shuffle=False), 2) == [10, 11, 12, 13, 14]
    assert epoch(ClipSampler(Keys(5), 0, 1, 2, shuffle=False), 0) == [3, 4, 0]


def test_shuffled_indices_are_a_permutation() -> None:
    order = sampling.permutation(20, generators(6, 3).synced).tolist()
    assert epoch(ClipSampler(Keys(20), 6), 3) == [60 + i for i in order]
    two = [epoch(ClipSampler(Keys(20), 6, rank, 2), 3) for rank in (0, 1)]
    assert two[0] + two[1] == [60 + i for i in order]


def test_positions_are_uniform() -> None:
    """An index comes first in 1/10 of all epochs, within five standard errors."""
    sampler = ClipSampler(Keys(10), 1)
    first = Counter(epoch(sampler, e)[0] % 10 for e in range(1000))
    assert all(abs(first[i] - 100) < 5 * (1000 * 0.1 * 0.9) ** 0.5 for i in range(10))


@pytest.mark.parametrize("world", [1, 3])
def test_groups_stay_together(world: int) -> None:
    """A group is consecutive and on one rank; the groups are in random order."""
    ranks = [epoch(ClipSampler(Keys(36, 4), 0, rank, world), 0) for rank in range(world)]
    starts = []
    for drawn in ranks:
        for place in range(0, len(drawn), 4):
            assert drawn[place] % 4 == 0
            assert drawn[place : place + 4] == [drawn[place] + k for k in range(4)]
            starts.append(drawn[place])
    assert sorted(starts) == list(range(0, 36, 4)) != starts


def test_the_last_group_may_be_smaller() -> None:
    drawn = epoch(ClipSampler(Keys(10, 4), 0, shuffle=True), 1)
    assert sorted(drawn) == list(range(10, 20))
    place = drawn.index(18)
    assert drawn[place + 1] == 19


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(1)
    first = epoch(ClipSampler(Keys(30), 5), 2)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    sampler = ClipSampler(Keys(30), 5)
    for number in (0, 1):
        epoch(sampler, number)
    assert epoch(sampler, 2) == first
    torch.manual_seed(1)
    epoch(sampler, 2)
    assert torch.equal(torch.get_rng_state(), state)
    places = [[key % 30 for key in drawn] for drawn in (first, epoch(sampler, 3))]
    assert places[0] != places[1] and first != epoch(ClipSampler(Keys(30), 6), 2)


def test_seeds_differ_from_those_of_models_and_other_samplers() -> None:
    """Although a step of a model has the same number as an epoch here."""
    mine = generators(5, 3, 1)
    own = generators(5, 3, 2).local.initial_seed()
    seeds = {mine.synced.initial_seed(), mine.local.initial_seed(), own}
    balanced = ClassBalancedSampler([0, 1], 5, 1, 2)
    balanced.set_epoch(3)
    for other in (sampling.generators(5, 3, 1), balanced.generators()):
        seeds |= {other.synced.initial_seed(), other.local.initial_seed()}
    assert len(seeds) == 7


def test_persistent_workers_get_the_epoch() -> None:
    sampler = ClipSampler(Keys(8), 2)
    loader = DataLoader(Keys(8), 2, sampler=sampler, num_workers=2, persistent_workers=True)
    for number in range(3):
        sampler.set_epoch(number)
        keys = torch.cat(list(loader)).tolist()
        assert keys == list(sampler)
        assert sorted(keys) == list(range(8 * number, 8 * number + 8))


def test_invalid_arguments() -> None:
    for rank, world in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(ValueError, match=rf"0 <= rank < world, got rank={rank}, world={world}"):
            ClipSampler(Keys(3), 0, rank, world)
    with pytest.raises(ValueError, match="a data set with at least one item, got 0"):
        ClipSampler(Keys(0))
