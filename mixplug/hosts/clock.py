"""Seed, step and epoch of a training run, and the plan that a mixer draws from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixplug import distributed as ranks
from mixplug import sampling
from mixplug.mixers.base import CLEAN, Mixer, Plan


@dataclass
class Clock:
    """The current step and epoch of a training run.

    In mmengine's Runner, a hook updates the clock before every iteration. In your own loop, set
    ``model.clock.step`` for every batch, and ``model.clock.epoch`` if the mixer has an
    ``off_epoch``.

    Attributes:
        seed: seed of the run.
        step: number of earlier batches, over all epochs.
        epoch: current epoch, counted from 0; None if it is not known.
    """

    seed: int = 0
    step: int = 0
    epoch: int | None = None


def known_epoch(mixer: Mixer, clock: Clock) -> int | None:
    """The clock's epoch.

    Raises:
        ValueError: the mixer needs the epoch, and it was not set.
    """
    if mixer.off_epoch is not None and clock.epoch is None:
        raise ValueError(
            f"{mixer.name} has off_epoch={mixer.off_epoch}, but the epoch is not known. mmengine's "
            f"Runner sets it; in your own loop set model.clock.epoch, counted from 0, at the start "
            f"of every epoch."
        )
    return clock.epoch


def plan_within(mixer: Mixer, clock: Clock, place: int = 0) -> Plan:
    """The mixer's plan in this step for one of the model's heads.

    All heads take the same branch, and each draws its own Λ.

    Args:
        mixer: of the model.
        clock: of the model.
        place: number of the head, from 0.
    """
    if mixer.is_off(known_epoch(mixer, clock)):
        return Plan(CLEAN)
    draws = sampling.generators(clock.seed, clock.step, ranks.rank())
    plan = mixer.sample_within(draws)
    for _ in range(place):
        plan = replace(plan, key=sampling.key(draws.local))
    return plan
