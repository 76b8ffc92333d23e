"""Common parts of pre-activation networks: residual block, trunk, and linear head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (1, 2)
POOLS = ("avg", "")


@dataclass(frozen=True)
class TrunkSpec:
    """Shape of a trunk: channels of the stem, channels of each stage, blocks in each stage."""

    stem: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]


class PreActBlock(nn.Module):
    r"""Pre-activation residual block [0]: two 3x3 convolutions, each after batch norm and ReLU.

    y = s + conv2(relu(norm2(conv1(a)))),   a = relu(norm1(x)),
    s = x                                   if the shape does not change,
    s = shortcut(a), a 1x1 convolution      if the width or the resolution changes.

    No layer follows the sum, so a block whose branch outputs zero is the identity. The projection
    takes the activation ``a``, not ``x``, so both paths start from the same normalized map.

    Shapes: (B, C, H, W) to (B, C', H / stride, W / stride), rounded up.

    Args:
        in_chans: number C of input channels.
        out_chans: number C' of output channels.
        stride: stride of the first convolution and of the projection.

    - [0]: Identity Mappings in Deep Residual Networks, 2016, https://arxiv.org/abs/1603.05027
    """

    def __init__(self, in_chans: int, out_chans: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_chans)
        self.conv1 = nn.Conv2d(in_chans, out_chans, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_chans)
        self.conv2 = nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_chans != out_chans:
            self.shortcut = nn.Conv2d(in_chans, out_chans, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        a = F.relu(self.norm1(x))
        identity = x if self.shortcut is None else self.shortcut(a)
        return identity + self.conv2(F.relu(self.norm2(self.conv1(a))))


class PreActTrunk(nn.Module):
    """Trunk without head: stem, stages of pre-activation blocks, final batch norm and ReLU.

    A = act(norm(stages(conv1(x)))). The stem is a 3x3 convolution without norm and activation,
    since the first block starts with its own norm. ``act`` is the last module before pooling, and
    its output is A.

    Args:
        spec: widths and depths.
        in_chans: channels of the image.
        stem_stride: stride of the stem: 1 for 32x32 images; 2 gives 64x64 images the same map
            sizes.
        last_stride: stride of the last stage. 1 doubles the side of A without adding parameters.

    Raises:
        ValueError: a stride is not 1 or 2.
    """

    def __init__(
        self, spec: TrunkSpec, in_chans: int = 3, stem_stride: int = 1, last_stride: int = 2
    ) -> None:
        _check_strides(stem_stride, last_stride)
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, spec.stem, 3, stem_stride, padding=1, bias=False)
        # The first stage has the resolution of the stem, as in both papers.
        strides = (1,) + (2,) * (len(spec.widths) - 2) + (last_stride,)
        widths_in = (spec.stem, *spec.widths[:-1])
        shapes = zip(widths_in, spec.widths, spec.blocks, strides, strict=True)
        self.stages = nn.Sequential(*(_stage(*shape) for shape in shapes))
        self.norm = nn.BatchNorm2d(spec.widths[-1])
        # Not in place, so that hooks on ``norm`` or ``stages`` see their unchanged outputs.
        self.act = nn.ReLU()
        self.feature_info = _feature_info(spec, stem_stride, strides)
        self.apply(init_conv)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to the last feature map A (B, C, h, w), A >= 0."""
        return self.act(self.norm(self.stages(self.conv1(x))))


class PreActNet(PreActTrunk):
    """A trunk with global average pooling and a linear classifier ``fc``, with timm's interface.

    logits = fc(dropout(e)), e = mean of A over positions; (B, in_chans, H, W) to (B, num_classes).

    Args:
        spec: widths and depths of the trunk.
        num_classes: number K of classes. 0 removes ``fc``, so forward returns e (B, C).
        in_chans: channels of the image.
        stem_stride: stride of the stem, see :class:`PreActTrunk`.
        last_stride: stride of the last stage, see :class:`PreActTrunk`.
        drop_rate: dropout probability of e in training, a fraction.
        global_pool: 'avg', or '' for no pooling. The latter needs ``num_classes=0``; forward then
            returns A.

    Raises:
        ValueError: an option is not allowed.
    """

    def __init__(
        self,
        spec: TrunkSpec,
        num_classes: int = 10,
        in_chans: int = 3,
        stem_stride: int = 1,
        last_stride: int = 2,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__(spec, in_chans, stem_stride, last_stride)
        if not 0.0 <= drop_rate < 1.0:
            raise ValueError(f"drop_rate must be a fraction in [0, 1), got {drop_rate}.")
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = spec.widths[-1]
        self.global_pool_type = global_pool
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """Return the linear classifier, or the identity if num_classes is 0."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one.

        Args:
            num_classes: number K of classes; 0 for no classifier.
            global_pool: 'avg' or ''; None does not change the pooling.

        Raises:
            ValueError: an unknown pooling, or a classifier without pooling.
        """
        pool = self.global_pool_type if global_pool is None else global_pool
        if pool not in POOLS:
            raise ValueError(f"global_pool must be one of {POOLS}, got {pool!r}.")
        if num_classes < 0 or (num_classes and not pool):
            raise ValueError(
                f"num_classes must be >= 0, and 0 without pooling, got {num_classes=} with "
                f"global_pool={pool!r}."
            )
        self.num_classes = num_classes
        self.global_pool_type = pool
        self.global_pool = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)) if pool else nn.Identity()
        )
        # The new head gets the device and dtype of the model.
        like = self.conv1.weight
        self.fc: nn.Module = nn.Identity()
        if num_classes:
            self.fc = nn.Linear(self.num_features, num_classes).to(like.device, like.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Raise ValueError for ``enable=True``, as gradient checkpointing is not supported."""
        if enable:
            raise ValueError(
                f"{type(self).__name__} does not support gradient checkpointing: enable must be "
                "False, got True."
            )

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map A (B, C, h, w) to logits (B, K), or with ``pre_logits`` to the embedding e (B, C)."""
        e = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return e if pre_logits else self.fc(e)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to logits (B, K)."""
        return self.forward_head(self.forward_features(x))


def _stage(in_chans: int, out_chans: int, blocks: int, stride: int) -> nn.Sequential:
    """Build a stage. Its first block changes width and resolution."""
    rest = [PreActBlock(out_chans, out_chans) for _ in range(blocks - 1)]
    return nn.Sequential(PreActBlock(in_chans, out_chans, stride), *rest)


def _check_strides(stem_stride: int, last_stride: int) -> None:
    for name, value in (("stem_stride", stem_stride), ("last_stride", last_stride)):
        if value not in STRIDES:
            raise ValueError(f"{name} must be one of {STRIDES}, got {value!r}.")


def _feature_info(
    spec: TrunkSpec, stem_stride: int, strides: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Channels, total stride and module name of the outputs of the stem and of each stage."""
    reduction = stem_stride
    info = [{"num_chs": spec.stem, "reduction": reduction, "module": "conv1"}]
    for i, (width, stride) in enumerate(zip(spec.widths, strides, strict=True)):
        reduction *= stride
        info.append({"num_chs": width, "reduction": reduction, "module": f"stages.{i}"})
    # The map of the last stage is taken after the final norm and ReLU.
    info[-1]["module"] = "act"
    return info


def init_conv(module: nn.Module) -> None:
    """Initialize convolutions as He does. Batch norms keep PyTorch's weight 1 and bias 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
