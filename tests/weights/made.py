"""Tiny vision transformers with weights that all matter, and checkpoints in several formats."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mixplug.models.self_distillation.dino_head import DINOHead

IMAGES = (2, 3, 32, 32)


def shaken(model: nn.Module) -> nn.Module:
    """Change all tensors so that none is zero, one, or equal to another.

    Then a forgotten or swapped tensor changes the result.
    """
    with torch.no_grad():
        for value in filter(torch.is_floating_point, model.state_dict().values()):
            value.add_(0.1 * torch.randn_like(value))
    model.eval()
    return model  # not model.eval(), which returns None in mmpretrain


def timm_vit(**keys: Any) -> nn.Module:
    """Width 128, two heads of 64, two blocks, 4 x 4 patches."""
    plain = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
    return shaken(VisionTransformer(**{**plain, "mlp_ratio": 1.5, "num_classes": 0, **keys}))


def mm_vit(**keys: Any) -> nn.Module:
    """The same network in mmpretrain."""
    from mmpretrain.models.backbones import VisionTransformer as MMVisionTransformer

    arch = {"embed_dims": 128, "num_layers": 2, "num_heads": 2, "feedforward_channels": 192}
    return shaken(MMVisionTransformer(**{"arch": arch, "img_size": 32, "patch_size": 8, **keys}))


def mmseg_vit(**keys: Any) -> nn.Module:
    """The same network in mmseg; mmseg's defaults have another epsilon and no patch bias."""
    from mmseg.models.backbones import VisionTransformer as MMSegVisionTransformer

    return shaken(MMSegVisionTransformer(**{**_MMSEG, "patch_bias": True, **keys}))


_MMSEG = {"img_size": 32, "patch_size": 8, "embed_dims": 128, "num_layers": 2, "num_heads": 2}
_MMSEG |= {"mlp_ratio": 2, "final_norm": True, "norm_cfg": {"type": "LN", "eps": 1e-6}}


def timm_beit(**keys: Any) -> nn.Module:
    """Like :func:`timm_vit`, with a hidden layer of 256 channels."""
    from timm.models.beit import Beit

    plain = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
    plain |= {"mlp_ratio": 2, "num_classes": 0, "init_values": 0.1, "global_pool": "token"}
    plain |= {"use_abs_pos_emb": False, "use_rel_pos_bias": True}
    return shaken(Beit(**{**plain, **keys}))


def mmseg_beit(**keys: Any) -> nn.Module:
    from mmseg.models.backbones import BEiT

    return shaken(BEiT(**{**_MMSEG, **keys}))


def mm_beit(**keys: Any) -> nn.Module:
    """The same network in mmpretrain."""
    from mmpretrain.models.backbones import BEiTViT

    arch = {"embed_dims": 128, "num_layers": 2, "num_heads": 2, "feedforward_channels": 256}
    plain = {"arch": arch, "img_size": 32, "patch_size": 8, "final_norm": True}
    return shaken(BEiTViT(**{**plain, "out_type": "featmap", **keys}))


def map_of(model: nn.Module, size: tuple[int, ...] = IMAGES) -> Tensor:
    """The last map of patches after the norm, for the same images as :func:`output`."""
    images = torch.randn(size, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        if hasattr(model, "forward_intermediates"):
            return model.forward_intermediates(
                images, indices=1, norm=True, intermediates_only=True
            )[0]
        return _last(model(images))


def output(model: nn.Module, size: tuple[int, ...] = IMAGES) -> Tensor:
    """The class tokens of fixed images."""
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
    """A checkpoint as DINO and DoRA save it."""
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
    """A checkpoint of a self-distillation model as mmengine saves it."""
    from mmengine.logging import HistoryBuffer

    state = under("method.student.backbone.", student) | under("method.student.head.", head())
    state |= under("method.teacher.backbone.", teacher) | under("method.teacher.head.", head())
    state |= {"method.center": torch.randn(20), "method.steps": torch.tensor(4)}
    state |= {"data_preprocessor.mean": torch.randn(3, 1, 1)}
    hub = {"log_scalars": {"train/loss": HistoryBuffer([1.0, 0.5], [1, 1])}, "runtime_info": {}}
    torch.save({"state_dict": state, "message_hub": hub, "meta": {"epoch": 2}}, path)
    return path


def with_names_of_torch(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A DINO head's state with the names that torch's parametrized weight norm saves."""
    names = {
        "last_layer.weight_g": "last_layer.parametrizations.weight.original0",
        "last_layer.weight_v": "last_layer.parametrizations.weight.original1",
    }
    return {names.get(name, name): tensor for name, tensor in head.items()}
