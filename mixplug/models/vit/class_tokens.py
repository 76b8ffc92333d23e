"""Class tokens of several blocks of a vision transformer, as linear classifiers are given them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.models.vit.encoder_base import Encoder, caught


def class_tokens(encoder: Encoder, x: Tensor, blocks: int = 1) -> Tensor:
    """Class tokens of the last blocks side by side, each after the last norm, as in DINO.

    Args:
        encoder: of a vision transformer of timm.
        x: images (B, 3, H, W), normalized.
        blocks: how many of the last ones; the first of them comes first.

    Returns:
        (B, blocks D).

    Raises:
        ValueError: not so many blocks, or see :meth:`mixplug.models.vit.encoder.Encoder.grid`.
    """
    require_blocks(encoder, blocks)
    vit: Any = encoder.backbone
    with ExitStack() as stack:
        every = vit.blocks[-blocks:-1] if blocks > 1 else ()
        earlier = [stack.enter_context(caught(block)) for block in every]
        last = encoder.cls(x)
    if not earlier:
        return last
    norm = vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm
    return torch.cat([*(norm(tokens[:, 0]) for (tokens,) in earlier), last], -1)


def require_blocks(encoder: Encoder, blocks: int) -> None:
    """Refuse more blocks than there are.

    Raises:
        ValueError: so.
    """
    if not 1 <= blocks <= encoder.depth:
        raise ValueError(
            f"class_tokens needs blocks in [1, {encoder.depth}], which the network has, got "
            f"{blocks}."
        )
