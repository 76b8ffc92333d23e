"""TimmViT and ViTPyramid: the four maps of a ViT, and the four scales made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import WIDTH, frames, plt, save, show, street
from torch import Tensor

from mixplug.demo.dora import SIZE
from mixplug.models import TimmViT, ViTPyramid
from mixplug.models.self_distillation.views import normalized

SIDE, TIME = 256, 8.9


def draw(path: Path, quick: bool) -> None:
    """Every map in the colors of its three main directions, each at its own size."""
    video, _, method = street(2 if quick else 200)
    frame = frames(video, [TIME], SIDE, 16)
    options = {key: value for key, value in SIZE.items() if key != "weight_init"}
    vit = TimmViT("vit_tiny_patch16_224", out_indices=(0, 1, 2, 2), final_norm=True, **options)
    vit.model.load_state_dict(method.teacher.backbone.state_dict(), strict=False)
    pyramid = ViTPyramid(vit.num_features).eval()
    for layer in pyramid.modules():
        if isinstance(layer, torch.nn.ConvTranspose2d):  # training fits them; here they copy
            torch.nn.init.zeros_(layer.bias)
            layer.weight.data.copy_(torch.eye(vit.num_features)[..., None, None])
    with torch.no_grad():
        levels = pyramid(vit.eval()(normalized(frame)))
    fig, axes = plt.subplots(2, 1, figsize=(WIDTH, 3.3), layout="constrained")
    show(axes[0], frame[0], f"a frame, {frame.shape[-2]} x {frame.shape[-1]} pixels")
    _draw_pyramid(axes[1], levels, frame.shape[-2])
    save(fig, path)


def _draw_pyramid(axes: Any, levels: Sequence[Tensor], height: int) -> None:
    """Maps beside each other, a position of each as large as one of the others."""
    left = 0
    for a in levels:
        high, wide = a.shape[-2:]
        axes.imshow(_colors(a[0]).permute(1, 2, 0), extent=(left, left + wide, high, 0))
        axes.text(left, high + 4, f"stride {height // high}", va="top")
        left += wide + 12
    axes.set(xlim=(0, left + 20), ylim=(levels[0].shape[-2] + 18, 0), aspect="equal")
    axes.axis("off")


def _colors(a: Tensor) -> Tensor:
    """A map (C, H, W) by its three main directions, (3, H, W) in [0, 1]."""
    columns = a.flatten(1) - a.flatten(1).mean(1, keepdim=True)
    directions = torch.linalg.svd(columns.double(), full_matrices=False)[0][:, :3]
    shown = directions.T @ columns.double()
    low, high = (shown.quantile(q, 1, keepdim=True) for q in (0.02, 0.98))
    return ((shown - low) / (high - low)).clamp(0, 1).view(3, *a.shape[1:]).float()
