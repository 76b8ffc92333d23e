"""CutMix: a rectangle of one image pasted into another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import register
from mixplug.mixers.base import Plan
from mixplug.mixers.pairwise import PairMixer


@register("CutMix", alias="cutmix", reference="thesis 3.2")
@dataclass(frozen=True, kw_only=True)
class CutMix(PairMixer):
    """CutMix [0]: paste a rectangle of x' into x, and mix targets by the areas.

    λ ~ Beta(α, α), and the rectangle has an area of 1 - λ. Its center is uniform, and it is clipped
    to the image. The target of x weighs the area outside the clipped rectangle. There is one
    rectangle per batch.

    Attributes:
        per_example: must be False, since there is one rectangle per batch.

    - [0]: CutMix, 2019, https://arxiv.org/abs/1905.04899
    """

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self.require(
            not self.per_example, "per_example", "False, since there is one rectangle per batch"
        )

    def refine(self, plan: Plan, x: Tensor, generators: sampling.Generators) -> Plan:
        """Draw the rectangle. Its area before clipping is 1 - λ."""
        height, width = x.shape[-2:]
        box = sampling.box(height, width, 1 - float(plan.lam[0]), generators.local)
        return replace(plan, box=box)

    def mix_input(self, x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """A copy of x with the rectangle of the pair, and the share of the area outside it."""
        top, bottom, left, right = plan.box
        pasted = x.clone()
        other = x[plan.permutation.to(x.device, non_blocking=True)]
        pasted[..., top:bottom, left:right] = other[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (x.shape[-2] * x.shape[-1])
        return pasted, torch.full_like(plan.lam, share)
