"""Draw Figures 3.1 to 3.3 for two images: ``mixplug viz alignment``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mixplug.from_config.decoder import decoding
from mixplug.viz import alignment


def draw_alignment(
    first: Path,
    second: Path,
    checkpoint: Path,
    config: Path,
    steps: int,
    eps: float | None,
    iters: int | None,
    out: Path,
    tick: Callable[[str], None] = lambda _: None,
) -> tuple[list[Path], str]:
    """Mix the feature maps of two images at ``steps`` values of λ, decode them, and draw figures.

    Args:
        first: image file x.
        second: image file x'.
        checkpoint: checkpoint with a decoder.
        config: the config that it was trained with.
        steps: number of values of λ from 0 to 1, at least 2.
        eps: ε; None takes that of the config.
        iters: Sinkhorn iterations; None takes those of the config.
        out: folder for ``alignment.png`` and ``correspondences.png``.
        tick: called with a description of the current step.

    Returns:
        The files, and a line that describes them.

    Raises:
        ValueError: see :func:`mixplug.from_config.decoder.decoding`.
    """
    tick("loading")
    found = decoding(config, checkpoint)
    mixer, stages = found.mixer, found.stages
    options = {
        "eps": mixer.eps if eps is None else eps,
        "iters": mixer.iters if iters is None else iters,
        "normalize_cost": mixer.normalize_cost,
        "tol": mixer.tol,
    }
    pair = found.ready([first, second])
    lam = torch.linspace(0, 1, steps)
    tick("mixing")
    decode = found.autoencoder.decoder
    rows = alignment.interpolations(
        stages, decode, pair, lam, mixer.features, mixer.pool, **options
    )
    plan, grid = alignment.transport(stages, pair, mixer.features, mixer.pool, **options)
    tick("drawing")
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "alignment.png", out / "correspondences.png"]
    originals = found.shown(pair)
    shown = {name: found.shown(images) for name, images in rows.items()}
    title = f"{first.name} and {second.name}, decoded by {checkpoint.name}"
    alignment.figure(originals, shown, lam.tolist(), files[0], title)
    summary = _summary(plan, grid, options["eps"], options["iters"])
    alignment.lines(originals, plan, grid, files[1], summary)
    return files, summary


def _summary(plan: Tensor, grid: tuple[int, int], eps: float, iters: int) -> str:
    strongest = plan.amax(-1)
    return (
        f"{grid[0]} x {grid[1]} positions, ε = {eps:g}, {iters} iterations: the strongest "
        f"correspondence of a position has {100 * float(strongest.mean()):.0f} % of its mass "
        f"(a uniform plan: {100 / plan.shape[-1]:.0f} %)."
    )
