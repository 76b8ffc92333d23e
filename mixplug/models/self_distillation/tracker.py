"""Objects of a vision transformer's heads over a clip, (6.1) to (6.6)."""

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
    """Discovery and tracking of objects, (6.1) to (6.6); see :mod:`mixplug.functional.track`.

    Attributes:
        refine: whether prototypes are made distinct, (6.4) and (6.5); without, (6.3).
        eps: ε of Sinkhorn-Knopp.
        iters: its iterations.
        normalize: whether output embeddings are ℓ2-normalized for it.
        plan: 'columns' or 'joint'.
        attention_scale: of (6.1), 'head' or 'dim'.
        track_scale: of (6.3) and (6.6), 'dim' or a number > 0.

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
        """Objects of B frames.

        Args:
            tokens: of these frames.
            heads: which heads, (B, k) int64.

        Returns:
            P or P', (B, k, D).
        """
        attention = cls_attention(tokens.queries, tokens.keys, tokens.prefix, self.attention_scale)
        index = heads[:, :, None].expand(-1, -1, attention.shape[-1])
        queries = _side_by_side(tokens.queries, tokens)
        objects = object_prototypes(attention.gather(1, index), queries)
        if not self.refine:
            return objects
        settings = (self.eps, self.iters, self.normalize, self.plan)
        return refine_prototypes(objects, tokens.patches, *settings)

    def __call__(self, tokens: Tokens, heads: Tensor, frames: int = 1) -> Tensor:
        """Discover objects in the first frame of every clip and track them over all.

        Args:
            tokens: of B clips, (B T, ...), a clip's frames one after the other.
            heads: which heads, (B, k) int64.
            frames: T; with 1 every frame has objects of its own.

        Returns:
            T or T', (B T, k, N).
        """
        objects = self.discover(tokens.every(frames), heads)[:, None]  # (B, 1, k, D)
        keys = _side_by_side(tokens.keys, tokens).unflatten(0, (-1, frames))
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
    """What objects attend to in the frames of one clip, for pictures (Figures 6.4 to 6.6).

    Args:
        encoder: of any vision transformer, as :func:`mixplug.models.vit.as_encoder` gives it; its
            backbone should be in eval mode.
        frames: (T, 3, H, W), normalized.
        objects: k; the first k heads are taken unless ``heads`` names them.
        heads: which heads the objects are discovered with.
        tracking: whether objects are those of the first frame, or every frame's own.
        tracker: settings; None is the default, ``Tracker(refine=False)`` is without Sinkhorn.

    Returns:
        T' of (6.6), or T of (6.3), (T, k, N).

    Raises:
        ValueError: more objects than heads, a head that does not exist, or a size that is no
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


def _side_by_side(heads: Tensor, tokens: Tokens) -> Tensor:
    """Patches' queries or keys of all heads, (B, h, P + N, D / h) to (B, N, D)."""
    return heads.transpose(1, 2).flatten(2)[:, tokens.prefix :]
