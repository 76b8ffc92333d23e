"""Patches of several images in one sequence of a vision transformer that is left as it is.

Letters: B groups, V images in each, N patches of an image, P prefix tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mixplug.models.vit.encoder_base import Encoder


def joint_patches(view: Encoder, images: Tensor) -> Tensor:
    """Patch tokens after the last norm, where patches of a group attend to one another.

    The network runs its own forward on B V images. Before its first block the sequences of a
    group become one, without class and register tokens, as SeqTrack's encoder has none; after the
    last block they are put apart again. All images have the same position embeddings.

    Args:
        view: of the network.
        images: (B, V, 3, H, W).

    Returns:
        (B, V, N, D).

    Raises:
        ValueError: see :meth:`Encoder.grid`.
    """
    view.grid((images.shape[-2], images.shape[-1]))
    groups, count = images.shape[:2]
    with _side_by_side(_blocks(view.backbone), count, view.prefix):
        tokens = view._tokens(images.flatten(0, 1))
    return tokens[:, view.prefix :].unflatten(0, (groups, count))


@contextmanager
def _side_by_side(blocks: Any, count: int, prefix: int) -> Iterator[None]:
    kept: list[Tensor] = []  # prefix tokens as they came, so that shapes are the usual afterwards

    def join(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        kept.append(x[:, :prefix])
        return (x[:, prefix:].unflatten(0, (-1, count)).flatten(1, 2), *inputs[1:])

    def part(_module: Any, _inputs: Any, x: Tensor) -> Tensor:
        return torch.cat([kept.pop(), x.unflatten(1, (count, -1)).flatten(0, 1)], 1)

    handles = [
        blocks[0].register_forward_pre_hook(join),
        blocks[-1].register_forward_hook(part),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _blocks(backbone: Any) -> Any:
    """Of timm's or of mmpretrain's VisionTransformer."""
    return backbone.blocks if hasattr(backbone, "blocks") else backbone.layers
