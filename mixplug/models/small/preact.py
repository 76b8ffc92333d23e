"""What the pre-activation networks share: the residual block, the trunk, and the linear head."""

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
    r"""Two 3x3 convolutions, each after its own batch norm and ReLU, around a shortcut [0].

    y = s + conv2(relu(norm2(conv1(a)))),   a = relu(norm1(x)),
    s = x                                   where the shape stays,
    s = shortcut(a), a 1x1 convolution      where the width or the stride changes.

    Nothing follows the sum, so with a silent branch the block is the identity. A projection reads
    the activation ``a``, not ``x``: both paths then start from the same normalized map.

    Shapes: (B, C, H, W) to (B, C', H / stride, W / stride), rounded up.

    Args:
        in_chans: C.
        out_chans: C'.
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
    """Stem, stages of pre-activation blocks, final batch norm and ReLU; no head.

    A = act(norm(stages(conv1(x)))); the stem is a bare 3x3 convolution, because the first block
    brings its own norm. ``act`` is the last module before pooling and its output is A.

    Args:
        spec: widths and depths.
        in_chans: channels of the image.
        stem_stride: 1 for 32x32 images; 2 brings 64x64 images to the same map sizes.
        last_stride: stride of the last stage; 1 doubles the side of A and adds no parameter.
    """

    def __init__(
        self, spec: TrunkSpec, in_chans: int = 3, stem_stride: int = 1, last_stride: int = 2
    ) -> None:
        _check_strides(stem_stride, last_stride)
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, spec.stem, 3, stem_stride, padding=1, bias=False)
        # The first stage keeps the stem's resolution, as both papers have it.
        strides = (1,) + (2,) * (len(spec.widths) - 2) + (last_stride,)
        widths_in = (spec.stem, *spec.widths[:-1])
        shapes = zip(widths_in, spec.widths, spec.blocks, strides, strict=True)
        self.stages = nn.Sequential(*(_stage(*shape) for shape in shapes))
        self.norm = nn.BatchNorm2d(spec.widths[-1])
        # Not in place: a hook on ``norm`` or ``stages`` must see what they really returned.
        self.act = nn.ReLU()
        self.feature_info = _feature_info(spec, stem_stride, strides)
        self.apply(init_conv)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to the last feature map A (B, C, h, w), A >= 0."""
        return self.act(self.norm(self.stages(self.conv1(x))))


class PreActNet(PreActTrunk):
    """A trunk with global average pooling and a linear classifier ``fc``, in timm's interface.

    logits = fc(dropout(e)), e = mean of A over positions; (B, in_chans, H, W) to (B, num_classes).

    Args:
        spec: widths and depths of the trunk.
        num_classes: K; 0 leaves ``fc`` out, and forward returns e (B, C).
        in_chans: channels of the image.
        stem_stride: see :class:`PreActTrunk`.
        last_stride: see :class:`PreActTrunk`.
        drop_rate: dropout probability of e in training, a fraction.
        global_pool: 'avg', or '' for no pooling (then without a classifier: forward returns A).
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
            raise ValueError(f"drop_rate is a fraction: got {drop_rate}, allowed is [0, 1).")
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = spec.widths[-1]
        self.global_pool_type = global_pool
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """Return the linear classifier, or the identity where num_classes is 0."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in place of the old one.

        Args:
            num_classes: K; 0 for no classifier.
            global_pool: 'avg' or ''; None keeps the pooling as it is.
        """
        pool = self.global_pool_type if global_pool is None else global_pool
        if pool not in POOLS:
            raise ValueError(f"Unknown pooling: got global_pool={pool!r}, allowed are {POOLS}.")
        if num_classes < 0 or (num_classes and not pool):
            raise ValueError(
                f"num_classes must be >= 0, and 0 without pooling: got {num_classes=} with "
                f"global_pool={pool!r}."
            )
        self.num_classes = num_classes
        self.global_pool_type = pool
        self.global_pool = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)) if pool else nn.Identity()
        )
        # Beside the other weights: a model already moved or cast takes its new head along.
        like = self.conv1.weight
        self.fc: nn.Module = nn.Identity()
        if num_classes:
            self.fc = nn.Linear(self.num_features, num_classes).to(like.device, like.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse gradient checkpointing; ``enable=False`` is accepted, since nothing is on."""
        if enable:
            raise ValueError(
                f"{type(self).__name__} has no gradient checkpointing: got enable=True, "
                "allowed is False."
            )

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map A (B, C, h, w) to logits (B, K), or to the embedding e (B, C) for ``pre_logits``."""
        e = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return e if pre_logits else self.fc(e)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to logits (B, K)."""
        return self.forward_head(self.forward_features(x))


def _stage(in_chans: int, out_chans: int, blocks: int, stride: int) -> nn.Sequential:
    """Chain blocks, of which the first changes width and resolution."""
    rest = [PreActBlock(out_chans, out_chans) for _ in range(blocks - 1)]
    return nn.Sequential(PreActBlock(in_chans, out_chans, stride), *rest)


def _check_strides(stem_stride: int, last_stride: int) -> None:
    for name, value in (("stem_stride", stem_stride), ("last_stride", last_stride)):
        if value not in STRIDES:
            raise ValueError(f"{name} must be one of {STRIDES}, got {value!r}.")


def _feature_info(
    spec: TrunkSpec, stem_stride: int, strides: tuple[int, ...]
) -> list[dict[str, Any]]:
    """List channels, total stride and module name of the stem's and of each stage's output."""
    reduction = stem_stride
    info = [{"num_chs": spec.stem, "reduction": reduction, "module": "conv1"}]
    for i, (width, stride) in enumerate(zip(spec.widths, strides, strict=True)):
        reduction *= stride
        info.append({"num_chs": width, "reduction": reduction, "module": f"stages.{i}"})
    # The last stage is read after the final norm and ReLU: only there it is a usable map.
    info[-1]["module"] = "act"
    return info


def init_conv(module: nn.Module) -> None:
    """Draw convolutions by He's rule; batch norms keep torch's weight 1 and bias 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
