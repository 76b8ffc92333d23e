"""Discover objects with the heads of a vision transformer, and track them, (6.1) to (6.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.functional.track import (
    PLANS,
    SCALES,
    cls_attention,
    object_prototypes,
    refine_prototypes,
    track,
)
from mixplug.models.vit.encoder_base import Encoder, Tokens


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """Settings of discovery and tracking, (6.1) to (6.6); see :mod:`mixplug.functional.track`.

    Attributes:
        refine: whether Sinkhorn-Knopp makes prototypes distinct, (6.4) and (6.5); False is (6.3).
        eps: ε of Sinkhorn-Knopp.
        iters: iterations of Sinkhorn-Knopp.
        normalize: whether Sinkhorn-Knopp works on ℓ2-normalized output embeddings.
        plan: 'columns' or 'joint', see :func:`mixplug.functional.object_plan`.
        attention_scale: of the attention (6.1), 'head' or 'dim'.
        track_scale: of the tracking, (6.3) and (6.6), 'dim' or a number > 0.

    Raises:
        ValueError: a setting that is not allowed.
    """

    refine: bool = True
    eps: float = 0.05
    iters: int = 30
    normalize: bool = True
    plan: str = "columns"
    attention_scale: str = "head"
    track_scale: str | float = "dim"

    def __post_init__(self) -> None:
        for key, allowed, holds in (
            ("eps", "> 0", self.eps > 0),
            ("iters", ">= 1", self.iters >= 1),
            ("plan", f"in {PLANS}", self.plan in PLANS),
            ("attention_scale", f"in {SCALES}", self.attention_scale in SCALES),
            ("track_scale", "'dim' or a number > 0", _is_scale(self.track_scale)),
        ):
            if not holds:
                raise ValueError(f"Tracker needs {key} {allowed}, got {getattr(self, key)!r}.")

    def discover(self, tokens: Tokens, heads: Tensor) -> Tensor:
        """Prototypes of the objects of B frames.

        Args:
            tokens: of these frames.
            heads: indices of the heads, (B, k) int64.

        Returns:
            P or P', (B, k, D).
        """
        attention = cls_attention(tokens.queries, tokens.keys, tokens.prefix, self.attention_scale)
        index = heads[:, :, None].expand(-1, -1, attention.shape[-1])
        queries = _patches_of(tokens.queries, tokens)
        objects = object_prototypes(attention.gather(1, index), queries)
        if not self.refine:
            return objects
        settings = (self.eps, self.iters, self.normalize, self.plan)
        return refine_prototypes(objects, tokens.patches, *settings)

    def __call__(self, tokens: Tokens, heads: Tensor, frames: int = 1) -> Tensor:
        """Discover objects in the first frame of every clip and track them over all.

        Args:
            tokens: of B clips, (B T, ...), grouped by clip.
            heads: indices of the heads, (B, k) int64.
            frames: T; with T = 1 every frame has its own objects.

        Returns:
            T or T', (B T, k, N).
        """
        objects = self.discover(tokens.every(frames), heads)[:, None]  # (B, 1, k, D)
        keys = _patches_of(tokens.keys, tokens).unflatten(0, (-1, frames))
        return track(objects, keys, self.track_scale).flatten(0, 1)


@torch.no_grad()
def object_tracks(
    encoder: Encoder,
    frames: Tensor,
    objects: int = 3,
    heads: Sequence[int] | None = None,
    tracking: bool = True,
    tracker: Tracker | None = None,
) -> Tensor:
    """Attention of objects to the patches of one clip, for figures (Figures 6.4 to 6.6).

    Args:
        encoder: of a vision transformer, from :func:`mixplug.models.vit.as_encoder`; its backbone
            should be in evaluation mode.
        frames: (T, 3, H, W), normalized.
        objects: k; the first k heads are used unless ``heads`` is given.
        heads: indices of the heads that discover the objects.
        tracking: True tracks the objects of the first frame, False discovers new ones in every
            frame.
        tracker: settings; None is the default, ``Tracker(refine=False)`` has no Sinkhorn-Knopp.

    Returns:
        T' of (6.6), or T of (6.3), (T, k, N).

    Raises:
        ValueError: more objects than heads, a head that does not exist, or a size that is not a
            multiple of the patch.
    """
    chosen = list(range(objects)) if heads is None else list(heads)
    if not chosen or min(chosen) < 0 or max(chosen) >= encoder.heads:
        raise ValueError(
            f"object_tracks needs heads in [0, {encoder.heads}), got {chosen}: the last block has "
            f"{encoder.heads} heads, and every object needs one."
        )
    together = len(frames) if tracking else 1
    index = torch.tensor(chosen, device=frames.device).expand(len(frames) // together, -1)
    return (tracker or Tracker())(encoder.tokens(frames), index, together)


def _is_scale(scale: str | float) -> bool:
    return scale == "dim" if isinstance(scale, str) else scale > 0


def _patches_of(heads: Tensor, tokens: Tokens) -> Tensor:
    """Queries or keys of the patches, heads concatenated: (B, h, P + N, D / h) to (B, N, D)."""
    return heads.transpose(1, 2).flatten(2)[:, tokens.prefix :]
