"""Tiny vision transformers with weights that all matter, and checkpoints as hosts write them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mixplug.models.dino_head import DINOHead

IMAGES = (2, 3, 32, 32)


def shaken(model: nn.Module) -> nn.Module:
    """No tensor is zero, one, or equal to another, so that none can be forgotten or swapped."""
    with torch.no_grad():
        for value in filter(torch.is_floating_point, model.state_dict().values()):
            value.add_(0.1 * torch.randn_like(value))
    model.eval()
    return model  # eval of mmpretrain returns nothing


def timm_vit(**keys: Any) -> nn.Module:
    """Width 128, two heads of 64, two blocks, 4 x 4 patches."""
    plain = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
    return shaken(VisionTransformer(**{**plain, "mlp_ratio": 1.5, "num_classes": 0, **keys}))


def mm_vit(**keys: Any) -> nn.Module:
    """The same of mmpretrain."""
    from mmpretrain.models.backbones import VisionTransformer as MMVisionTransformer

    arch = {"embed_dims": 128, "num_layers": 2, "num_heads": 2, "feedforward_channels": 192}
    return shaken(MMVisionTransformer(**{"arch": arch, "img_size": 32, "patch_size": 8, **keys}))


def output(model: nn.Module, size: tuple[int, ...] = IMAGES) -> Tensor:
    """The class token of images that are always the same."""
    images = torch.randn(size, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return _last(model(images))


def _last(found: Any) -> Tensor:
    return found[-1] if isinstance(found, tuple) else found


def under(prefix: str, model: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in model.state_dict().items()}


def head() -> nn.Module:
    return shaken(DINOHead(128, out_dim=20, hidden=16, bottleneck=8, norm_last_layer=False))


def dino(path: Path, teacher: nn.Module, student: nn.Module, **more: Any) -> Path:
    """As DINO and DoRA save."""
    optimizer = torch.optim.AdamW(student.parameters())
    _last(student(torch.randn(IMAGES))).sum().backward()
    optimizer.step()
    saved = {
        "student": under("module.backbone.", student) | under("module.head.", head()),
        "teacher": under("backbone.", teacher) | under("head.", head()),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small", lr=np.float64(5e-4), gpus=[0, 1]),
        "dino_loss": {"center": torch.randn(1, 20)},
        **more,
    }
    torch.save(saved, path)
    return path


def mm(path: Path, teacher: nn.Module, student: nn.Module) -> Path:
    """As mmengine saves a model of self-distillation."""
    from mmengine.logging import HistoryBuffer

    state = under("method.student.backbone.", student) | under("method.student.head.", head())
    state |= under("method.teacher.backbone.", teacher) | under("method.teacher.head.", head())
    state |= {"method.centre": torch.randn(20), "method.steps": torch.tensor(4)}
    state |= {"data_preprocessor.mean": torch.randn(3, 1, 1)}
    hub = {"log_scalars": {"train/loss": HistoryBuffer([1.0, 0.5], [1, 1])}, "runtime_info": {}}
    torch.save({"state_dict": state, "message_hub": hub, "meta": {"epoch": 2}}, path)
    return path
