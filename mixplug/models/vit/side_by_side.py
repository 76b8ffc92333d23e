"""Attention between the patches of several images, in an unmodified vision transformer.

Letters: B groups, V images in each, N patches of an image, P prefix tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mixplug.models.vit.encoder_base import Encoder


def joint_patches(encoder: Encoder, images: Tensor) -> Tensor:
    """Patch tokens after the last norm, where all patches of a group attend to each other.

    The network runs its own forward pass on B V images. Before the first block the sequences of a
    group are joined into one, without class and register tokens, since the encoder of SeqTrack has
    none. After the last block the sequence is split again. All images have the same position
    embeddings.

    Args:
        encoder: of the network.
        images: (B, V, 3, H, W).

    Returns:
        (B, V, N, D).

    Raises:
        ValueError: see :meth:`mixplug.models.vit.Encoder.cls_and_patches`.
    """
    groups, count = images.shape[:2]
    with _joined(_blocks(encoder.backbone), count, encoder.prefix):
        _, patches = encoder.cls_and_patches(images.flatten(0, 1))
    return patches.unflatten(0, (groups, count))


@contextmanager
def _joined(blocks: Any, count: int, prefix: int) -> Iterator[None]:
    """Join sequences before the first of the blocks and split them after the last."""
    kept: list[Tensor] = []  # prefix tokens of the input, so that the output has its usual shape

    def join(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        kept.append(x[:, :prefix])
        return (x[:, prefix:].unflatten(0, (-1, count)).flatten(1, 2), *inputs[1:])

    def split(_module: Any, _inputs: Any, x: Tensor) -> Tensor:
        return torch.cat([kept.pop(), x.unflatten(1, (count, -1)).flatten(0, 1)], 1)

    handles = [
        blocks[0].register_forward_pre_hook(join),
        blocks[-1].register_forward_hook(split),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _blocks(backbone: Any) -> Any:
    """The blocks of timm's or mmpretrain's VisionTransformer."""
    return backbone.blocks if hasattr(backbone, "blocks") else backbone.layers
