"""Class tokens of the last blocks of a vision transformer, the input of linear probes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.models.vit.encoder_base import Encoder, outputs_of


def class_tokens(encoder: Encoder, x: Tensor, blocks: int = 1) -> Tensor:
    """Class tokens of the last blocks, each after the last norm, concatenated as in DINO.

    Args:
        encoder: of a vision transformer of timm.
        x: images (B, 3, H, W), normalized.
        blocks: number of blocks, counted from the end; the earliest comes first.

    Returns:
        (B, blocks D).

    Raises:
        ValueError: the network has fewer blocks; or see :meth:`mixplug.models.vit.Encoder.grid`.
    """
    require_blocks(encoder, blocks)
    vit: Any = encoder.backbone
    with ExitStack() as stack:
        every = vit.blocks[-blocks:-1] if blocks > 1 else ()
        earlier = [stack.enter_context(outputs_of(block)) for block in every]
        last = encoder.cls(x)
    if not earlier:
        return last
    norm = vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm
    return torch.cat([*(norm(tokens[:, 0]) for (tokens,) in earlier), last], -1)


def require_blocks(encoder: Encoder, blocks: int) -> None:
    """Refuse a number of blocks that the network does not have.

    Raises:
        ValueError: ``blocks`` is below 1 or above the depth.
    """
    if not 1 <= blocks <= encoder.depth:
        raise ValueError(
            f"class_tokens needs blocks in [1, {encoder.depth}], the depth of the network, got "
            f"{blocks}."
        )
