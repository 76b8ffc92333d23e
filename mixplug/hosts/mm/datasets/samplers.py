"""Samplers for mmengine: ``sampler=dict(type='mixplug.MPerClassSampler', batch_size=100, m=5)``.

The Runner gives them the data set and its own seed, and sets the epoch before each epoch.
"""

from __future__ import annotations

from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info, sync_random_seed

from mixplug.data import samplers
from mixplug.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class MPerClassSampler(samplers.MPerClassSampler):
    """Batches of ``batch_size / m`` classes with ``m`` examples of each, for metric learning.

    Args:
        dataset: whose examples have one class each. The Runner gives it.
        batch_size: that of the data loader, on one GPU.
        m: examples of each class in a batch.
        seed: seed of the order, the same on all ranks; None lets them agree on one.
        length: examples of an epoch over all ranks; None takes the size of the data set.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        batch_size: int,
        m: int,
        seed: int | None = None,
        length: int | None = None,
    ) -> None:
        super().__init__(class_labels(dataset), m, batch_size, *_place(seed), length)


@DATA_SAMPLERS.register_module()
class ClassBalancedSampler(samplers.ClassBalancedSampler):
    """Examples of uniformly drawn classes, so that rare classes come as often as frequent ones.

    Args:
        dataset: whose examples have one class each. The Runner gives it.
        seed: seed of the order, the same on all ranks; None lets them agree on one.
        length: examples of an epoch over all ranks; None takes the size of the data set.
        key: an integer of an example's record to balance instead of the class, such as 'domain' of
            mixplug.OfficeHome.

    Raises:
        ValueError: an example without that key.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        seed: int | None = None,
        length: int | None = None,
        key: str | None = None,
    ) -> None:
        labels = class_labels(dataset) if key is None else _values(dataset, key)
        super().__init__(labels, *_place(seed), length)


def class_labels(dataset: BaseDataset) -> list[int]:
    """The class of every example, by its ``get_cat_ids`` or else its ``gt_label``.

    Raises:
        ValueError: an example with no class or several.
    """
    return [_label(dataset, index) for index in range(len(dataset))]


def _label(dataset: BaseDataset, index: int) -> int:
    try:
        found = dataset.get_cat_ids(index)
    except (AttributeError, NotImplementedError):  # wrappers, and mmengine's own data sets
        label = dataset.get_data_info(index).get("gt_label", [])
        found = list(label) if hasattr(label, "__len__") else [label]
    if len(found) != 1:
        raise ValueError(
            f"A sampler by class needs one class per example, but example {index} of "
            f"{type(dataset).__name__} has {found}."
        )
    return int(found[0])


def _values(dataset: BaseDataset, key: str) -> list[int]:
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    for info in infos:
        if key not in info:
            raise ValueError(
                f"Examples of {type(dataset).__name__} have no {key!r}, only {sorted(info)}."
            )
    return [int(info[key]) for info in infos]


def _place(seed: int | None) -> tuple[int, int, int]:
    """Seed, rank and number of ranks."""
    rank, world = get_dist_info()
    return (sync_random_seed() if seed is None else seed), rank, world
