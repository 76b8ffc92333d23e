"""Seed, step and epoch of a training run, and the plan that a mixer draws from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixplug import distributed as ranks
from mixplug import sampling
from mixplug.mixers.base import CLEAN, Mixer, Plan


@dataclass
class Clock:
    """Seed, step and epoch of a training run.

    mmengine's Runner has a hook that sets it before every iteration. A loop of your own sets it
    itself: ``model.clock.step`` for every batch, ``model.clock.epoch`` if the mixer has an
    ``off_epoch``.

    Attributes:
        seed: of the run.
        step: number of batches before this one, over all epochs.
        epoch: counted from 0; None until it is set.
    """

    seed: int = 0
    step: int = 0
    epoch: int | None = None


def plan_within(mixer: Mixer, clock: Clock, place: int = 0) -> Plan:
    """Draw the plan of this step for head number ``place`` of the model.

    All heads take the same branch; each draws its own Λ.
    """
    if mixer.is_off(clock.epoch):
        return Plan(CLEAN)
    draws = sampling.generators(clock.seed, clock.step, ranks.rank())
    plan = mixer.sample_within(draws)
    for _ in range(place):
        plan = replace(plan, key=sampling.key(draws.local))
    return plan
