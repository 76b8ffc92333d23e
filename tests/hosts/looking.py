"""Two mixers that look: one at input gradients before it mixes, one at attention after it has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug import Plan, Stages
from mixplug.mixers import PairMixer
from mixplug.mixers.cutmix import CutMix
from mixplug.stages import Forward


@dataclass(frozen=True, kw_only=True)
class SalientPixels(PairMixer):
    """Every pixel is that of the image whose loss depends on it more; the share is theirs."""

    def mix_images(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        saliency = stages.probe(x, y, {"input_grad"}).input_grad.abs().sum(1, keepdim=True)
        mask = (saliency >= saliency[plan.permutation]).to(x.dtype)
        mixed = mask * x + (1 - mask) * x[plan.permutation]
        return mixed, mask.mean((1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class AttendedBox(CutMix):
    """CutMix whose targets weigh as much as the class token attends to what is left of each."""

    def attach(self, stages: Stages) -> None:
        super().attach(stages)
        stages.keep_attention()

    def share(
        self, stages: Stages, x: Tensor, plan: Plan, forward: Forward, measured: Tensor | None
    ) -> Tensor:
        attention, size = stages.attention(), x.shape[-2:]
        top, bottom, left, right = plan.box
        mask = torch.ones(1, 1, *size, device=x.device)
        mask[..., top:bottom, left:right] = 0
        grid = stages.layout.grid_of(attention.shape[1], size)
        mask = F.interpolate(mask, grid, mode="nearest").flatten()
        return (attention * mask).sum(1) / attention.sum(1)
