"""Input mixup: two photographs, and the overlays that the mixer makes of them."""

from __future__ import annotations

from pathlib import Path

import torch
from common import WIDTH, photographs, plt, save, show

import mixplug
from mixplug.mixers import Plan

LAM = (0.75, 0.5, 0.25)


def draw(path: Path, quick: bool) -> None:
    """Each row is one image of the batch: itself, its pair, and λ from large to small."""
    images = photographs(100, 150)
    mixer = mixplug.build("InputMixup")
    fig, axes = plt.subplots(2, 4, figsize=(WIDTH, 1.55), layout="constrained")
    for cell, image, name in zip(axes[:, 0], images, ("x", ""), strict=True):
        show(cell, image, name)
    for column, lam in enumerate(LAM, 1):
        plan = Plan("x", torch.tensor([1, 0]), torch.full((2,), lam))
        titles = (f"λ = {lam}", "")
        mixed = mixer.mix_input(images, plan)
        for cell, image, name in zip(axes[:, column], mixed, titles, strict=True):
            show(cell, image, name)
    save(fig, path)
