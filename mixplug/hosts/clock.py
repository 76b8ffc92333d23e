"""Where a run stands, and what a mixer within a host's model draws then."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixplug import distributed as ranks
from mixplug import sampling
from mixplug.mixers.base import CLEAN, Mixer, Plan


@dataclass
class Clock:
    """Where the run stands; a hook sets it before every iteration."""

    seed: int = 0
    step: int = 0
    epoch: int = 0


def plan_within(mixer: Mixer, clock: Clock, place: int = 0) -> Plan:
    """What the mixer draws in this step for the model's head number ``place``.

    All heads take the same branch, and draw a Λ of their own.
    """
    if mixer.is_off(clock.epoch):
        return Plan(CLEAN)
    draws = sampling.generators(clock.seed, clock.step, ranks.rank())
    plan = mixer.sample_within(draws)
    for _ in range(place):
        plan = replace(plan, key=sampling.key(draws.local))
    return plan
