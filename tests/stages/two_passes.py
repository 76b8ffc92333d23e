"""What one of two processes does: a probe in every step; a clean and a mixed pass in one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from toys import CLASSES, ConvNet, stages_of

from mixplug import Stages

STEPS = 4


class Normed(nn.Module):
    """With batch norm, whose buffers DDP broadcasts, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.body(x).mean((2, 3))))


class Plain(ConvNet):
    """Without norms and dropout, so that examples do not see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = self.dropout = nn.Identity()


def work(rank: int, out: Path) -> dict[str, Any]:
    """On rank ``rank`` of 2."""
    return {
        "without": probed(rank, with_probe=False),
        "with": probed(rank, with_probe=True),
        "both": both_passes(rank),
        "norm": both_passes_with_norm(rank),
    }


def data(rank: int, step: int = 0) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(10 * rank + step)
    x = torch.randn(5, 3, 6, 8, generator=source)
    return x, torch.randint(CLASSES, (5,), generator=source)


def probed(rank: int, with_probe: bool) -> list[Tensor]:
    """Gradients of all steps, and what the model is in the end."""
    torch.manual_seed(3)
    model = Normed()
    wrapped = DistributedDataParallel(model)
    stages = Stages(model, "body", "fc", call=wrapped)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(rank)  # of dropout
    seen: list[Tensor] = []
    for step in range(STEPS):
        x, y = data(rank, step)
        if with_probe and (rank == 0 or step % 2):  # one rank may look, and the other may not
            stages.probe(x, y, {"input_grad", "logits", "map"})
        loss = F.cross_entropy(stages(x).logits, y)
        if with_probe:
            stages.probe(x, want={"logits"})
        loss.backward()
        seen += [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        optimizer.zero_grad()
    return [*seen, *model.state_dict().values()]


def mixed_by_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Every pixel from the image whose clean loss depends on it more."""
    mask = grad.abs() >= grad.abs().roll(1, 0)
    return torch.where(mask, x.detach(), x.detach().roll(1, 0))


def both_passes(rank: int) -> list[Tensor]:
    """Gradients of a clean pass by DDP and a mixed one, which the clean one's gradient makes."""
    torch.manual_seed(3)
    model = Plain()
    wrapped = DistributedDataParallel(model)
    stages = stages_of(model, call=wrapped)
    x, y = data(rank)
    x.requires_grad_()
    clean = F.cross_entropy(stages(x).logits, y)
    (grad,) = torch.autograd.grad(clean, x, retain_graph=True)
    again = stages.again(mixed_by_gradient(x, grad))
    (clean + F.cross_entropy(again.logits, y.roll(1))).backward()
    return [p.grad for p in model.parameters()]


def in_one_process() -> list[Tensor]:
    """The same of the whole batch, without wrapper and in two plain passes."""
    torch.manual_seed(3)
    model = Plain()
    x, y = (torch.cat(parts) for parts in zip(data(0), data(1), strict=True))
    x.requires_grad_()
    clean = F.cross_entropy(model(x), y)
    (grad,) = torch.autograd.grad(clean, x, retain_graph=True)
    halves = zip(x.split(5), grad.split(5), strict=True)
    mixed = torch.cat([mixed_by_gradient(*half) for half in halves])
    target = torch.cat([part.roll(1) for part in y.split(5)])
    (clean + F.cross_entropy(model(mixed), target)).backward()
    return [p.grad for p in model.parameters()]


def both_passes_with_norm(rank: int) -> list[list[Tensor]]:
    """The rank's own gradients and those that DDP makes of them, with buffers that it sends."""
    torch.manual_seed(3)
    model = Normed()
    wrapped = DistributedDataParallel(model)
    own = copy.deepcopy(model)
    results = []
    for net, call in ((own, own), (model, wrapped)):
        stages = Stages(net, "body", "fc", call=call)
        x, y = data(rank)
        torch.manual_seed(rank)
        clean = F.cross_entropy(stages(x).logits, y)
        (clean + F.cross_entropy(stages.again(x.roll(1, 0)).logits, y)).backward()
        results.append([p.grad for p in net.parameters()])
    return results
