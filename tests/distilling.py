"""Small transformers and views for tests of self-distillation."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mixplug.functional import cross_entropy
from mixplug.models.self_distillation import (
    SelfDistillation,
    StepOutput,
    Target,
    TeacherOutput,
    Views,
)

HEAD = {"out_dim": 6, "hidden": 5, "bottleneck": 4, "layers": 2}
PATCH_HEAD = {"out_dim": 5, "hidden": 4, "bottleneck": 3, "layers": 2}


def vit(**keys: Any) -> VisionTransformer:
    """Of width 12 with 3 heads and patches of 4 x 4 pixels; no parameter is zero."""
    settings = {
        "img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3,
        "num_classes": 0, "dynamic_img_size": True, **keys,
    }  # fmt: skip
    model = VisionTransformer(**settings)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def views(dtype: torch.dtype = torch.float32, b: int = 2, t: int = 3, m: int = 2) -> Views:
    """B clips of T frames, 16 x 12 and 8 x 8 pixels."""
    small = torch.randn(m, b, t, 3, 8, 8, dtype=dtype) if m else None
    return Views(torch.randn(2, b, t, 3, 16, 12, dtype=dtype), small)


def spread_out(method: SelfDistillation) -> SelfDistillation:
    """The same with a teacher that is not the student, and a center that is not zero."""
    for parameter in method.teacher.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    method.center.normal_()
    return method


def total(losses: dict[str, Tensor]) -> Tensor:
    """L of (6.10)."""
    return sum(value for key, value in losses.items() if key.startswith("loss"))


class Patches(SelfDistillation):
    """Class tokens, and every second patch from the others."""

    def __init__(self, backbone: Any, patch: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(backbone, **settings)
        keys = {"head": PATCH_HEAD, "teacher_temperature": 0.2, "center_decay": 0.4}
        self.add_target(Target(name="patch", tokens="patch", **{**keys, **(patch or {})}))
        self.add_mask_token()

    def teach(self, large: Tensor, generator: torch.Generator) -> TeacherOutput:
        frames = large.flatten(0, 2)
        cls, patches = self.teacher_encoder.cls_and_patches(frames)
        mask = torch.arange(patches.shape[1]) % 2 == 0
        mask = mask.expand(len(frames), 1, -1)
        return TeacherOutput(cls, frames[:, None], mask=mask, patch_tokens=patches)

    def losses(self, outputs: StepOutput) -> dict[str, Tensor]:
        target, student = outputs.targets["patch"][:, :, None], outputs.student["patch"]
        terms = cross_entropy(target, student, self.targets["patch"].student_temperature)
        return {**super().losses(outputs), "loss_patch": terms.mean()}


class NoHostSync(TorchDispatchMode):
    """Fails where a tensor is read on the host, which would wait for a GPU."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "is_nonzero"), f"{name} waits"
        return func(*args, **(kwargs or {}))
