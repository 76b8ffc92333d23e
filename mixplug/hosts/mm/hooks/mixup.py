"""mmengine: the hook that goes with the mixup key, so that a resumed run goes on bit for bit."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn

from mixplug import sampling
from mixplug.distributed import rank
from mixplug.hosts.retype import retype, retyped
from mixplug.mixers.base import Mixer
from mixplug.registry import HOOKS


class Seeded:
    """A dataset whose item i draws its augmentations from (seed, epoch, i), in whatever worker."""

    seed: int
    epoch: torch.Tensor  # shared memory: persistent workers outlive an epoch

    def __getitem__(self, index: int) -> object:
        key = sampling.key(sampling.generators(self.seed, int(self.epoch), int(index)).local)
        with _global_seed(key):
            return self.plain.__getitem__(self, index)


class Resumed:
    """A batch sampler that leaves out, once, the batches which an epoch had before it stopped."""

    skip: int

    def __iter__(self) -> Iterator[list[int]]:
        # at the first batch and not before: a loader with workers makes two iterators, uses one
        done, self.skip = self.skip, 0
        yield from itertools.islice(self.plain.__iter__(self), done, None)


@HOOKS.register_module()
class MixupHook(Hook):
    """Tells the model's mixer seed, step and epoch, and keys all other draws likewise.

    mmengine restores the seed and the counters on resume. It does not restore the state of random
    generators, so they are seeded by what it restores: dropout and stochastic depth depend on
    seed, step and rank alone, the augmentation of an item on seed, epoch and index. Of an epoch
    that was left in the middle, batches that were done are not drawn again. Loops by iteration have
    no epochs to key, and keep mmengine's own order of data; a mixer's ``off_epoch`` would never
    come in them, and is refused.
    """

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Note the seed that the sampler was built with, before a checkpoint brings another."""
        self.built_with = runner.seed

    def before_train(self, runner: Runner) -> None:
        """Key the training set's augmentations, and its order after a resume without a set seed.

        Raises:
            ValueError: a mixer that an epoch ends, in a loop by iterations.
        """
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            _require_no_epoch(getattr(unwrapped(runner.model), "mixer", None))
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        loader = runner.train_loop.dataloader
        sampler = getattr(loader.batch_sampler, "sampler", None)
        if getattr(sampler, "seed", None) == self.built_with:
            sampler.seed = runner.seed
        retype(loader.dataset, Seeded)
        loader.dataset.seed = runner.seed
        loader.dataset.epoch = torch.tensor(runner.epoch).share_memory_()

    def before_train_epoch(self, runner: Runner) -> None:
        """Open an epoch of augmentations."""
        loader = runner.train_loop.dataloader
        if not retyped(loader.dataset, Seeded):
            return
        loader.dataset.epoch.fill_(runner.epoch)
        done = runner.iter - runner.epoch * len(loader)
        if 0 < done <= len(loader):
            retype(loader.batch_sampler, Resumed)
            loader.batch_sampler.skip = done

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        """Set the mixer's clock, and torch's generators."""
        clock = unwrapped(runner.model).clock
        clock.seed, clock.step, clock.epoch = runner.seed, runner.iter, runner.epoch
        own = sampling.derive_seed(runner.seed, sampling.HOST)
        torch.manual_seed(sampling.key(sampling.generators(own, runner.iter, rank()).local))


def unwrapped(model: nn.Module) -> nn.Module:
    """A Runner's model, without what distributes it."""
    return model.module if is_model_wrapper(model) else model


def _require_no_epoch(mixer: Mixer | None) -> None:
    if mixer is not None and mixer.off_epoch is not None:
        raise ValueError(
            f"A training loop by iterations is always in epoch 0, so that {mixer.name} would never "
            f"reach off_epoch={mixer.off_epoch}. Leave it out of the mixup key, or train by epochs "
            f"(train_cfg=dict(by_epoch=True, max_epochs=...))."
        )


@contextmanager
def _global_seed(key: int) -> Iterator[None]:
    """Seed the generators that transforms draw from, and put their states back."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(key)
    np.random.seed(key % (1 << 32))
    torch.default_generator.manual_seed(key)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
