"""Samplers: the content of every batch, frequencies, ranks and epochs.

Statistical bounds are five standard errors, with a fixed seed.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from mixplug import sampling
from mixplug.data.samplers import ClassBalancedSampler, MPerClassSampler

# Ten classes of 1, 2, 3, 4, 5, 5, 6, 7, 8 and 9 examples, shuffled, with gaps between the labels.
SIZES = dict(zip([3, 4, 11, 12, 20, 21, 33, -7, 40, 99], [1, 2, 3, 4, 5, 5, 6, 7, 8, 9]))  # noqa: B905
LABELS = torch.tensor([label for label, size in SIZES.items() for _ in range(size)])
LABELS = LABELS[torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(3))].tolist()


def batches(sampler: MPerClassSampler) -> list[list[int]]:
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    size = sampler.batch_size
    return [drawn[start : start + size] for start in range(0, len(drawn), size)]


def many(sampler: MPerClassSampler, epochs: int) -> Iterator[list[int]]:
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        yield from batches(sampler)


@pytest.mark.parametrize(("m", "batch_size"), [(2, 4), (5, 20), (3, 30), (4, 4)])
def test_every_batch_has_m_of_each_class(m: int, batch_size: int) -> None:
    """m examples in a row are of one class, rows of a batch differ; small classes repeat."""
    sampler = MPerClassSampler(LABELS, m, batch_size)
    for batch in many(sampler, 20):
        runs = [batch[start : start + m] for start in range(0, batch_size, m)]
        classes = [{LABELS[i] for i in run} for run in runs]
        assert all(len(found) == 1 for found in classes)
        labels = [found.pop() for found in classes]
        assert len(set(labels)) == len(labels) == batch_size // m
        for label, run in zip(labels, runs, strict=True):
            count = Counter(run)
            assert len(count) == min(m, SIZES[label])
            assert max(count.values()) - min(count.values()) <= 1


def test_classes_and_examples_of_a_class_are_uniform() -> None:
    """A class is in a batch with p = 4/10, then each of its examples with min(1, 2/size)."""
    sampler = MPerClassSampler(LABELS, 2, 8, length=8 * 100)
    drawn = list(many(sampler, 40))
    n = len(drawn)
    classes = Counter(label for batch in drawn for label in {LABELS[i] for i in batch})
    examples = Counter(i for batch in drawn for i in set(batch))
    for label, size in SIZES.items():
        assert abs(classes[label] - 0.4 * n) < 5 * math.sqrt(n * 0.4 * 0.6)
        p = 0.4 * min(1, 2 / size)
        for i in range(len(LABELS)):
            if LABELS[i] == label:
                assert abs(examples[i] - p * n) < 5 * math.sqrt(n * p * (1 - p))


def test_pairs_of_classes_are_uniform() -> None:
    """Each pair of classes is in a batch with p = (4 · 3) / (10 · 9)."""
    sampler = MPerClassSampler(LABELS, 2, 8, length=8 * 100)
    drawn = list(many(sampler, 40))
    counts = Counter(
        pair
        for batch in drawn
        for pair in itertools.combinations(sorted({LABELS[i] for i in batch}), 2)
    )
    n, p = len(drawn), 12 / 90
    assert len(counts) == 45
    assert all(abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p)) for count in counts.values())


def naive(m: int, batch_size: int, seed: int, epoch: int, rank: int, world: int) -> list[int]:
    """An epoch by hand, if one permutation of the classes serves all ranks."""
    key = sampling.key(sampling.generators(seed, -1).synced)
    draws = sampling.generators(key, epoch, rank)
    values, expected = sorted(SIZES), []
    for _ in range(len(LABELS) // (batch_size * world)):
        order = torch.randperm(len(values), generator=draws.synced).tolist()
        for slot in range(rank * (batch_size // m), (rank + 1) * (batch_size // m)):
            own = [i for i, label in enumerate(LABELS) if label == values[order[slot]]]
            chosen: list[int] = []
            while len(chosen) < m:
                shuffled = torch.randperm(len(own), generator=draws.local).tolist()
                chosen += [own[i] for i in shuffled]
            expected += chosen[:m]
    return expected


@pytest.mark.parametrize("world", [1, 3])
def test_equals_a_naive_loop(world: int) -> None:
    for seed, epoch, rank in itertools.product((0, 5), (0, 7), range(world)):
        sampler = MPerClassSampler(LABELS, 3, 9, seed, rank, world)
        sampler.set_epoch(epoch)
        assert list(sampler) == naive(3, 9, seed, epoch, rank, world)


def on_ranks(world: int, m: int, batch_size: int, **options: int) -> list[list[list[int]]]:
    return [
        list(many(MPerClassSampler(LABELS, m, batch_size, 1, rank, world, **options), 30))
        for rank in range(world)
    ]


@pytest.mark.parametrize(("world", "m", "batch_size"), [(2, 2, 8), (5, 2, 4), (3, 3, 9)])
def test_ranks_have_disjoint_classes_if_there_are_enough(
    world: int, m: int, batch_size: int
) -> None:
    for step in zip(*on_ranks(world, m, batch_size), strict=True):
        classes = [{LABELS[i] for i in batch} for batch in step]
        assert sum(map(len, classes)) == len(set().union(*classes)) == world * batch_size // m


def test_ranks_that_share_classes_differ() -> None:
    """Five ranks with four of ten classes each: two ranks share a permutation, none a batch."""
    ranks = on_ranks(5, 2, 8, length=400)
    assert [len(rank) for rank in ranks] == [300] * 5
    alike = 0
    for step in zip(*ranks, strict=True):
        classes = [{LABELS[i] for i in batch} for batch in step]
        assert not classes[0] & classes[1] and not classes[2] & classes[3]
        assert len({tuple(batch) for batch in step}) == 5
        alike += classes[0] == classes[2]
    assert alike < 10  # of 300: two permutations have the same first four of ten with p = 1/210
    whole = on_ranks(2, 2, 20, length=400)
    for one, two in zip(*whole, strict=True):  # both ranks need every class
        assert {LABELS[i] for i in one} == {LABELS[i] for i in two} and one != two


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_rank_has_the_same_number_of_batches(world: int) -> None:
    for length in (None, 40, 57):
        samplers = [MPerClassSampler(LABELS, 2, 4, 0, r, world, length) for r in range(world)]
        counts = {len(batches(sampler)) for sampler in samplers}
        assert counts == {(length or 50) // (4 * world)}


def test_small_data_has_one_batch() -> None:
    assert len(MPerClassSampler([0, 0, 1, 1, 1], 4, 8)) == 8
    assert len(MPerClassSampler([0, 0, 1, 1, 1], 4, 4, 0, 2, 3)) == 4


def both(epoch: int, seed: int = 0, rank: int = 0) -> list[list[int]]:
    samplers = (
        MPerClassSampler(LABELS, 2, 8, seed, rank, 2),
        ClassBalancedSampler(LABELS, seed, rank, 2),
    )
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


def test_an_epoch_depends_on_seed_epoch_and_rank_alone() -> None:
    """Neither on torch's global generator, which stays unchanged, nor on earlier epochs."""
    torch.manual_seed(1)
    first = both(3)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert both(3) == first
    torch.manual_seed(1)
    both(3)
    assert torch.equal(torch.get_rng_state(), state)
    for others in (both(4), both(3, seed=1), both(3, rank=1)):
        assert all(mine != other for mine, other in zip(first, others, strict=True))


def test_draws_differ_from_those_of_a_mixer_with_the_same_seed() -> None:
    """Otherwise step 3 of a mixer and epoch 3 of a sampler would use the same generator."""
    sampler = MPerClassSampler(LABELS, 2, 8, seed=5)
    sampler.set_epoch(3)
    mixer = sampling.generators(5, 3)
    for ours, theirs in (
        (sampler.generators().synced, mixer.synced),
        (sampler.generators().local, mixer.local),
    ):
        assert ours.initial_seed() != theirs.initial_seed()


@pytest.mark.parametrize("name", ["m per class", "balanced"])
def test_a_resumed_run_is_bitwise_equal(name: str) -> None:
    """With a real DataLoader, resumed at epoch 2 of 4."""

    def loader() -> DataLoader:
        balanced = name == "balanced"
        sampler = ClassBalancedSampler(LABELS, 4) if balanced else MPerClassSampler(LABELS, 2, 8, 4)
        data = TensorDataset(torch.arange(len(LABELS)), torch.tensor(LABELS))
        return DataLoader(data, batch_size=8, sampler=sampler)

    def epochs(run: DataLoader, numbers: range) -> list[list[Tensor]]:
        seen = []
        for epoch in numbers:
            run.sampler.set_epoch(epoch)
            seen.append([index for index, _ in run])
        return seen

    whole, resumed = epochs(loader(), range(4)), epochs(loader(), range(2, 4))
    for ours, theirs in zip(whole[2:], resumed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    first, second = (torch.cat(epoch) for epoch in whole[:2])
    assert not torch.equal(first, second)


def test_in_a_data_loader_every_anchor_has_positives() -> None:
    """The purpose of the sampler: each example has m - 1 others of its class in the batch."""
    data = TensorDataset(torch.arange(len(LABELS)), torch.tensor(LABELS))
    loader = DataLoader(data, batch_size=10, sampler=MPerClassSampler(LABELS, 5, 10))
    assert len(loader) == 5
    for _, labels in loader:
        assert torch.equal((labels[:, None] == labels).sum(1), torch.full((10,), 5))


def test_balanced_draws_are_inverse_to_the_size_of_the_class() -> None:
    """Each example has p = 1 / (10 · size), in any numbering of the classes."""
    n = 50_000
    count = Counter(ClassBalancedSampler(LABELS, length=n))
    assert sum(count.values()) == n
    for i, label in enumerate(LABELS):
        p = 1 / (10 * SIZES[label])
        assert abs(count[i] - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_balanced_draws_are_independent() -> None:
    """Two consecutive draws are of one class with p = 1/10: batches do not avoid positives."""
    labels = torch.tensor(LABELS)[list(ClassBalancedSampler(LABELS, length=20_001))]
    same = int((labels[1:] == labels[:-1]).sum())
    assert abs(same - 2000) < 5 * math.sqrt(20_000 * 0.1 * 0.9)


def test_balanced_ranks_divide_an_epoch() -> None:
    """A length of 50 gives 17 on each of 3 ranks; 20 gives 7."""
    for length, each in ((None, 17), (20, 7)):
        drawn = [list(ClassBalancedSampler(LABELS, 0, rank, 3, length)) for rank in range(3)]
        assert [len(rank) for rank in drawn] == [each] * 3
        assert len(ClassBalancedSampler(LABELS, 0, 2, 3, length)) == each
        assert drawn[0] != drawn[1] != drawn[2] != drawn[0]


@pytest.mark.parametrize(
    "labels", [LABELS, tuple(LABELS), torch.tensor(LABELS), np.array(LABELS, dtype=np.int32)]
)
def test_types_of_labels(labels: object) -> None:
    assert list(MPerClassSampler(labels, 2, 8)) == list(MPerClassSampler(LABELS, 2, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"m": 1}, r"needs m >= 2 to have positive pairs, got m=1\."),
        ({"batch_size": 9}, r"needs a batch_size that is a multiple of m, got batch_size=9, m=2\."),
        ({"batch_size": 0}, r"needs a batch_size that is a multiple of m, got batch_size=0, m=2\."),
        ({"batch_size": 22}, r"A batch of 22 with m=2 needs 11 classes, but the labels have 10\."),
        ({"length": 15, "world": 2}, r"length >= 16 \(one batch per rank\), got 15\."),
        ({"rank": 2, "world": 2}, r"needs 0 <= rank < world, got rank=2, world=2\."),
        ({"rank": -1}, r"needs 0 <= rank < world, got rank=-1, world=1\."),
        ({"labels": [0.0, 1.0]}, r"Labels must be integers, got torch\.float32\."),
        ({"labels": [True, False]}, r"Labels must be integers, got torch\.bool\."),
        ({"labels": ["cat", "dog"]}, r"Labels must be integers, one per example: "),
        ({"labels": [[0], [1]]}, r"have shape \(B,\) with B > 0, got \(2, 1\)\."),
        ({"labels": [[0], [1, 2]]}, r"Labels must be integers, one per example: "),
        ({"labels": torch.empty(0, dtype=torch.int64)}, r"\(B,\) with B > 0, got \(0,\)\."),
    ],
)
def test_invalid_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MPerClassSampler(**{"labels": LABELS, "m": 2, "batch_size": 8, **options})


def test_balanced_invalid_settings() -> None:
    with pytest.raises(ValueError, match=r"ClassBalancedSampler needs length >= 1, got 0\."):
        ClassBalancedSampler(LABELS, length=0)
    with pytest.raises(ValueError, match=r"Labels must be integers, got torch\.float32\."):
        ClassBalancedSampler([0.5])
