"""Batches, stages and plans that the tests of mixers share."""

from __future__ import annotations

import torch
from reference.algorithm import Network
from torch import Tensor, nn
from toys import CLASSES, ConvNet, classify, embed, feature_map, stages_of

from mixplug import Mixer, Plan, sampling

LABELS = torch.tensor([2, 0, 1, 3, 3, 0, 1])


def batch(dtype: torch.dtype, size: int = 5, side: tuple[int, int] = (6, 8)) -> tuple:
    """Images (B, 3, 6, 8), whose maps are 3x4, and their class indices."""
    return torch.randn(size, 3, *side, dtype=dtype), LABELS[:size]


def rows(labels: Tensor) -> Tensor:
    """One-hot targets in float64."""
    return torch.eye(CLASSES, dtype=torch.float64)[labels]


def toy(dtype: torch.dtype, net: type[nn.Module] = ConvNet, **options: object) -> tuple:
    """A toy without dropout, and its stages."""
    model = net(**options).to(dtype).eval()
    return model, stages_of(model)


def by_stages(model: nn.Module) -> Network:
    """The toy, stage by stage."""
    return Network(
        lambda x: feature_map(model, x), lambda a: embed(model, a), lambda e: classify(model, e)
    )


def plan_of(mixer: Mixer, x: Tensor, branch: str | None = None) -> Plan:
    """A plan that the mixer draws, of the asked branch if there are several."""
    for step in range(300):
        plan = mixer.sample(x, sampling.generators(0, step))
        if branch in (None, plan.branch):
            # A pair that is its own partner would hide which operand is which.
            if plan.permutation.tolist() != sorted(plan.permutation.tolist()) or len(x) == 1:
                return plan
            if not len(plan.permutation):
                return plan
    raise AssertionError(f"{mixer} never draws the branch {branch!r}")


def partners(plan: Plan) -> list[int]:
    """π as a list."""
    return plan.permutation.tolist()


def factors(plan: Plan) -> list[float]:
    """λ of each example as the first operand."""
    return plan.lam.double().tolist()


def parameters(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Everything that is trained."""
    return list(model.named_parameters())
