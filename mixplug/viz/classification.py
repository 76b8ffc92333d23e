"""Reliability curves, and mixed examples seen through a decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.functional.aligned import align, mix
from mixplug.functional.calibration import calibration_bins, expected_calibration_error
from mixplug.models.heads.decoder import ResidualDecoder
from mixplug.optional import optional
from mixplug.stages import Stages
from mixplug.viz.reliability import curves

LAMBDAS = (1.0, 0.75, 0.5, 0.25, 0.0)


def figure(
    probabilities: Mapping[str, Tensor], labels: Tensor, examples: Mapping[str, Tensor], path: Path
) -> None:
    """Draw and save one figure: calibration on the left, mixed examples on the right.

    Args:
        probabilities: (B, K) for each method.
        labels: (B,) classes.
        examples: (5, h, w) images for each way of mixing, one per λ of ``LAMBDAS``.
        path: path of the PNG.
    """
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    fig = plt.figure(figsize=(12, 5.2), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=(1, 1.15))
    reliability(left, probabilities, labels)
    image_grid(right, examples)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def reliability(panel: Any, probabilities: Mapping[str, Tensor], labels: Tensor) -> None:
    """Draw accuracy against confidence in bins; on the diagonal both are equal."""
    axes = panel.subplots()
    bins = {name: calibration_bins(rows, labels, bins=10) for name, rows in probabilities.items()}
    errors = {
        name: float(expected_calibration_error(rows, labels))
        for name, rows in probabilities.items()
    }
    curves(axes, bins, errors, least=5 / len(labels))  # too few examples give no useful accuracy
    axes.set(
        xlabel="confidence",
        ylabel="accuracy",
        title="Reliability: above the line is underconfident",
    )
    axes.legend(loc="lower right", frameon=False, title="test images of all seeds together")


def image_grid(panel: Any, examples: Mapping[str, Tensor]) -> None:
    """Draw one row per way of mixing, one column per λ."""
    axes = panel.subplots(len(examples), len(LAMBDAS), squeeze=False)
    for row, (name, images) in zip(axes, examples.items(), strict=True):
        for cell, image, lam in zip(row, images, LAMBDAS, strict=True):
            cell.imshow(image, cmap="gray", vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
            if row is axes[0]:
                cell.set_title(f"λ = {lam:g}", fontsize=10)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    panel.suptitle("One mixed pair of images; rows 2 to 4 are decoded embeddings", fontsize=12)


def mixed_examples(
    model: nn.Module, features: str, classifier: str, images: Tensor, pair: Sequence[int]
) -> dict[str, Tensor]:
    """Mix a pair of images in five ratios: as pixels, and as features that a decoder makes visible.

    The decoder is trained here on clean embeddings of the frozen network, only for this figure
    (3.3.3). The aligned maps are those of (3.12) and (3.13).

    Args:
        model: trained classifier.
        features: name of the module whose output is the map.
        classifier: name of the last module.
        images: (B, C, H, W) images to train the decoder on.
        pair: indices of two images.

    Returns:
        (5, H, W) for each way of mixing.
    """
    model.eval()
    stages = Stages(model, features, classifier)
    decoder = train_decoder(stages, images)
    two = images[list(pair)]
    other = two.flip(0)
    ways = {
        "aligned, λA + (1-λ)Ã": lambda a, lam: mix(a, align(a, a.flip(0))[0], lam)[:1],
        "aligned, λA' + (1-λ)Ã'": lambda a, lam: mix(a.flip(0), align(a, a.flip(0))[1], lam)[:1],
        "not aligned": lambda a, lam: mix(a, a.flip(0), lam)[:1],
    }
    rows = {"pixels (input mixup)": torch.stack([mix(two, other, lam)[0, 0] for lam in LAMBDAS])}
    with torch.no_grad():
        for name, way in ways.items():
            codes = [stages(two, features=partial(way, lam=lam)).embedding for lam in LAMBDAS]
            rows[name] = decoder(torch.cat(codes))[:, 0].clamp(0, 1)
    return rows


def train_decoder(stages: Stages, images: Tensor, steps: int = 400) -> nn.Module:
    """Train a decoder of clean embeddings (B, D) with the squared error of pixels."""
    with torch.no_grad():
        codes = stages(images).embedding
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = ResidualDecoder(codes.shape[1], tuple(images.shape[1:]), width=32)
        optimizer = torch.optim.Adam(decoder.parameters(), 3e-3)
        for _ in range(steps):
            index = torch.randint(len(images), (128,))
            optimizer.zero_grad()
            (decoder(codes[index]) - images[index]).square().sum((1, 2, 3)).mean().backward()
            optimizer.step()
    return decoder.eval()
