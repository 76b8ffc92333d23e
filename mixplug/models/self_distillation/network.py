"""A backbone with the heads of all targets: what student and teacher of a method consist of."""

from __future__ import annotations

import torch
from torch import nn

from mixplug.models.self_distillation.dino_head import DINOHead
from mixplug.models.self_distillation.targets import CLS


class Network(nn.Module):
    """A backbone, a head for each target, and for a student optionally a mask token.

    In the state dict ``backbone`` and ``head``, the head of the target 'cls', have the names of
    DINO's checkpoints. Heads of further targets are in ``heads``, such as ``heads.patch``.

    Args:
        backbone: a vision transformer.
    """

    head: DINOHead
    mask_token: nn.Parameter | None

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        self.register_parameter("mask_token", None)

    def add_head(self, target: str, head: DINOHead) -> None:
        """Own the head of a target."""
        if target == CLS:
            self.head = head
        else:
            self.heads[target] = head

    def head_of(self, target: str) -> DINOHead:
        """The head of a target that has one of its own."""
        found = self.head if target == CLS else self.heads[target]
        assert isinstance(found, DINOHead)
        return found

    def add_mask_token(self, width: int) -> None:
        """Own a mask token (D,)."""
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))
