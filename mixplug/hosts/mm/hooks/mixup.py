"""mmengine hook of the key ``mixup``: it keys all random draws, so that runs resume bit for bit."""

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
    """A dataset whose item i draws its augmentations from (seed, epoch, i), in any worker."""

    seed: int
    epoch: torch.Tensor  # shared memory: persistent workers outlive an epoch

    def __getitem__(self, index: int) -> object:
        key = sampling.key(sampling.generators(self.seed, int(self.epoch), int(index)).local)
        with _global_seed(key):
            return self.plain.__getitem__(self, index)


class Resumed:
    """A batch sampler that skips, once, the batches of an epoch that were done before a stop."""

    skip: int

    def __iter__(self) -> Iterator[list[int]]:
        # reset at the first batch: a loader with workers makes two iterators and uses one
        done, self.skip = self.skip, 0
        yield from itertools.islice(self.plain.__iter__(self), done, None)


@HOOKS.register_module()
class MixupHook(Hook):
    """Gives the mixer seed, step and epoch, and derives all other random draws from them.

    On resume mmengine restores the seed and the counters, but not the states of random generators.
    So these are seeded from what it restores: dropout and stochastic depth depend only on seed,
    step and rank, the augmentation of an item only on seed, epoch and index. In an epoch that was
    interrupted, batches that were done are not drawn again. Loops by iterations have no epochs, so
    they keep mmengine's order of data, and a mixer with ``off_epoch`` is refused in them.
    """

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Note the seed that the sampler was built with, before a checkpoint restores another."""
        self.built_with = runner.seed

    def before_train(self, runner: Runner) -> None:
        """Key the augmentations of the training set, and its order if no seed was configured.

        Raises:
            ValueError: a mixer with ``off_epoch`` in a loop by iterations, or a hook that will
                change the run to one that cannot be mixed.
        """
        model = unwrapped(runner.model)
        if hasattr(model, "check_hooks"):
            model.check_hooks(runner.hooks)
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
        """Start an epoch of augmentations, and skip batches that were done before a resume."""
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
        """Set the clock of the mixer, and seed torch's generators."""
        clock = unwrapped(runner.model).clock
        clock.seed, clock.step, clock.epoch = runner.seed, runner.iter, runner.epoch
        own = sampling.derive_seed(runner.seed, sampling.HOST)
        torch.manual_seed(sampling.key(sampling.generators(own, runner.iter, rank()).local))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model of a Runner, without a wrapper for distributed training."""
    return model.module if is_model_wrapper(model) else model


def _require_no_epoch(mixer: Mixer | None) -> None:
    if mixer is not None and mixer.off_epoch is not None:
        raise ValueError(
            f"A training loop by iterations is always in epoch 0, so {mixer.name} would never "
            f"reach off_epoch={mixer.off_epoch}. Remove that key, or train by epochs "
            f"(train_cfg=dict(by_epoch=True, max_epochs=...))."
        )


@contextmanager
def _global_seed(key: int) -> Iterator[None]:
    """Seed the generators that transforms draw from, and restore their states afterwards."""
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
