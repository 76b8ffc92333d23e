"""TimmViT and ViTPyramid: the four maps of a ViT, and the four scales made of them."""

from __future__ import annotations

from pathlib import Path

import torch
from common import WIDTH, plt, save, show, street
from torch import Tensor

from mixplug.demo.dora import SIZE
from mixplug.models.self_distillation.views import normalized
from mixplug.models.vit import TimmViT, ViTPyramid
from mixplug.video import open_reader
from mixplug.viz.track_video import fitted

SIDE, TIME = 256, 8.9


def draw(path: Path, quick: bool) -> None:
    """Every map in the colors of its three main directions, each at its own size."""
    video, _, method = street(2 if quick else 200)
    with open_reader(video) as reader:
        frame = fitted(reader.read([TIME]), (16, 16), SIDE)
    options = {key: value for key, value in SIZE.items() if key != "weight_init"}
    vit = TimmViT("vit_tiny_patch16_224", out_indices=(0, 1, 2, 2), final_norm=True, **options)
    vit.model.load_state_dict(method.teacher.backbone.state_dict(), strict=False)
    torch.manual_seed(0)
    pyramid = ViTPyramid(vit.num_features).eval()
    with torch.no_grad():
        levels = pyramid(vit.eval()(normalized(frame)))
    size = tuple(frame.shape[-2:])
    fig, axes = plt.subplots(2, 2, figsize=(WIDTH, 2.3), layout="constrained")
    for cell, a in zip(axes.flat, levels, strict=True):
        stride = size[0] // a.shape[-2]
        name = f"stride {stride}: {a.shape[-2]} x {a.shape[-1]}"
        show(cell, _colors(a[0]), name, interpolation="nearest")
    save(fig, path)


def _colors(a: Tensor) -> Tensor:
    """A map (C, H, W) by its three main directions, (3, H, W) in [0, 1]."""
    columns = a.flatten(1) - a.flatten(1).mean(1, keepdim=True)
    directions = torch.linalg.svd(columns.double(), full_matrices=False)[0][:, :3]
    shown = directions.T @ columns.double()
    low, high = (shown.quantile(q, 1, keepdim=True) for q in (0.02, 0.98))
    return ((shown - low) / (high - low)).clamp(0, 1).view(3, *a.shape[1:]).float()
