"""CutMix: rectangles that the mixer draws for two photographs, and the λ that is left."""

from __future__ import annotations

from pathlib import Path

from common import SECOND, WIDTH, photographs, plt, save, show

import mixplug
from mixplug import sampling

STEPS = (13, 5, 0)  # in which each image is paired with the other


def draw(path: Path, quick: bool) -> None:
    """Two images and their mixtures in three steps; λ is the share that x keeps."""
    images = photographs(100, 150)
    mixer = mixplug.build("CutMix")
    fig, axes = plt.subplots(2, 4, figsize=(WIDTH, 1.55), layout="constrained")
    for cell, image, name in zip(axes[:, 0], images, ("x", ""), strict=True):
        show(cell, image, name)
    for column, step in enumerate(STEPS, 1):
        plan = mixer.sample(images, sampling.generators(0, step))
        top, bottom, left, right = plan.box
        mixed, share = mixer.mix_input(images, plan)
        titles = (f"λ = {float(share[0]):.2f}", "")
        for cell, image, name in zip(axes[:, column], mixed, titles, strict=True):
            show(cell, image, name)
            edge = plt.Rectangle(
                (left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=SECOND
            )
            cell.add_patch(edge)
    save(fig, path)
