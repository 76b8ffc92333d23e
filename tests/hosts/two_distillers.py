"""What one of two processes does: three steps of self-distillation on its half of every batch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from distilling import HEAD, Patches, total, views, vit
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import mixplug
from mixplug.models.self_distillation import SelfDistillation, Views

STEPS, BATCHES, CLIPS = 3, 2, 4  # a step is made of several batches of so many clips
# With as many objects as heads what is drawn is their order alone, so one process and two agree.
METHODS = {"DINO": {}, "DoRA": {"objects": 3}, "DoRA drawn": {"objects": 1}, "Patches": {}}
OTHERS = {"Patches": Patches}  # with a target of patches, a head and a center for them, and a mask


def work(rank: int, out: Path) -> dict[str, Any]:
    """On rank ``rank`` of 2."""
    return {name: train(name, rank, 2) for name in METHODS}


def train(name: str, rank: int, world: int) -> dict[str, Any]:
    """Gradients of every step, and the state after the last."""
    torch.manual_seed(0)
    kind = OTHERS.get(name, name.partition(" ")[0])
    method: SelfDistillation = mixplug.build(
        kind, "selfsup", backbone=vit(), head=HEAD, ema_decay=0.9, **METHODS[name]
    )
    drawn = recorded(method)
    model = DistributedDataParallel(method) if world > 1 else method
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.1, momentum=0.9)
    method.attach(optimizer)
    gradients: list[Tensor] = []
    for step in range(STEPS):
        for batch in range(BATCHES):
            torch.manual_seed(100 * step + batch)
            clips = mine(views(b=CLIPS, t=2), rank, world)
            last = batch == BATCHES - 1
            with model.no_sync() if world > 1 and not last else contextlib.nullcontext():
                (total(model(clips)) / BATCHES).backward()
        trained = [p for p in method.student.parameters() if p.requires_grad]
        gradients.append(torch.cat([p.grad.flatten() for p in trained]))
        optimizer.step()
        optimizer.zero_grad()
    return {"gradients": gradients, "state": method.state_dict(), "drawn": drawn}


def mine(whole: Views, rank: int, world: int) -> Views:
    """The share of this process."""
    here = slice(rank * CLIPS // world, (rank + 1) * CLIPS // world)
    return Views(whole.large[:, here], whole.small[:, here])


def recorded(method: SelfDistillation) -> list[list[list[int]]]:
    """Collects which heads were drawn."""
    drawn: list[list[list[int]]] = []
    if hasattr(method, "tracker"):
        inner = method.attention

        def attention(tokens: Any, clips: int, frames: int, source: torch.Generator) -> Tensor:
            state = source.get_state()
            heads = mixplug.sampling.subsets(clips, 3, method.objects, source)
            source.set_state(state)
            drawn.append(heads.tolist())
            return inner(tokens, clips, frames, source)

        method.attention = attention
    return drawn
