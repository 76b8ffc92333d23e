"""DoRA: objects that attention heads discover, tracked over a clip, as crops of the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.track import MASKS, masked_frames, patch_masks
from mixplug.models.self_distillation.distillation import SelfDistillation, Taught
from mixplug.models.self_distillation.tracker import Tracker, object_tracks
from mixplug.models.vit.encoder_base import RECOMPUTABLE, Tokens
from mixplug.renamed import renamed_keys

__all__ = ["DoRA", "Tracker", "object_tracks"]

KEPT = ("object", "random")


@register("DoRA", kind="selfsup", reference="thesis 6.4", hosts=("mm", "torch"))
@renamed_keys(centre_decay="center_decay")
class DoRA(SelfDistillation):
    """Discover objects in the first frame of a clip, track them, and distil each of them.

    The student sees k masked versions of every large view. A view's masks come from the teacher's
    tokens of that same view, the target from the other view (6.8). Losses are ``loss_object`` and
    ``loss_local``; ``mask_share`` is the share of a view that a mask keeps, in the mean.

    Args:
        backbone: see :class:`mixplug.models.self_distillation.SelfDistillation`.
        objects: k, at most the number of heads h; every clip draws its k heads, the same ones for
            both views.
        tracking: whether objects are those of the first frame; without, every frame has its own
            (DoRA* on images).
        mask: 'object'; or 'random', what k random block-wise masks leave (Table 6.7c). There are no
            objects then, and nothing of the tracker matters.
        mask_kind: 'binary', or 'soft', the letter of (6.7).
        mask_ratio: share, or range of shares, that random masks hide.
        refine: whether Sinkhorn-Knopp makes objects distinct.
        eps: its ε.
        iters: its iterations.
        normalize: whether it works on ℓ2-normalized output embeddings.
        plan: 'columns' or 'joint', see :func:`mixplug.functional.object_plan`.
        attention_scale: 'head' or 'dim', see :func:`mixplug.functional.cls_attention`.
        track_scale: 'dim' or a number, see :func:`mixplug.functional.track`.
        head: keys of the head.
        heads: into how many heads the last block is split anew.
        student_temperature: τ_s.
        teacher_temperature: τ_t.
        center_decay: weight of the old center.
        ema_decay: weight of the old teacher.
        reduction: 'mean' or 'sum'.
        seed: of all draws.
        recompute: see :class:`mixplug.models.self_distillation.SelfDistillation`.

    Raises:
        ValueError: more objects than heads, or a setting that is not allowed.
    """

    views_key = "loss_object"

    def __init__(
        self,
        backbone: nn.Module | Mapping[str, Any] | str,
        objects: int = 3,
        tracking: bool = True,
        mask: str = "object",
        mask_kind: str = "binary",
        mask_ratio: float | tuple[float, float] = (0.1, 0.5),
        refine: bool = True,
        eps: float = 0.05,
        iters: int = 30,
        normalize: bool = True,
        plan: str = "columns",
        attention_scale: str = "head",
        track_scale: str | float = "dim",
        head: Mapping[str, Any] | None = None,
        heads: int | None = None,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        center_decay: float = 0.9,
        ema_decay: float = 0.996,
        reduction: str = "mean",
        seed: int = 0,
        recompute: Sequence[str] = RECOMPUTABLE,
    ) -> None:
        super().__init__(
            backbone, head, heads, student_temperature, teacher_temperature, center_decay,
            ema_decay, reduction, seed, recompute,
        )  # fmt: skip
        available = self.student_encoder.heads
        if not 1 <= objects <= available:
            raise ValueError(
                f"DoRA needs objects between 1 and the {available} heads of the last block, got "
                f"{objects}: take fewer, or split that block anew by heads=..."
            )
        self._require(mask in KEPT, "mask", mask, f"in {KEPT}")
        self._require(mask_kind in MASKS, "mask_kind", mask_kind, f"in {MASKS}")
        sampling.share_range(mask_ratio)
        self.objects, self.tracking = objects, tracking
        self.mask, self.mask_kind, self.mask_ratio = mask, mask_kind, mask_ratio
        self.tracker = Tracker(
            refine=refine, eps=eps, iters=iters, normalize=normalize, plan=plan,
            attention_scale=attention_scale, track_scale=track_scale,
        )  # fmt: skip

    def _teach(self, large: Tensor, source: torch.Generator) -> Taught:
        frames, view = large.flatten(0, 2), self.teacher_encoder
        if self.mask == "random":
            grid = view.grid((large.shape[-2], large.shape[-1]))
            count = len(frames) * self.objects
            hidden = sampling.block_masks(count, grid, self.mask_ratio, source)
            kept = (~hidden).unflatten(0, (-1, self.objects)).to(frames.device)
            return self._taught(view.cls(frames), frames, kept.float(), grid)
        tokens = view.tokens(frames)
        attention = self.attention(tokens, large.shape[1], large.shape[2], source)
        masks = patch_masks(attention, self.mask_kind)
        return self._taught(tokens.cls, frames, masks, tokens.grid)

    @staticmethod
    def _taught(cls: Tensor, frames: Tensor, masks: Tensor, grid: tuple[int, int]) -> Taught:
        return Taught(cls, masked_frames(frames, masks, grid), {"mask_share": masks.mean()})

    def attention(self, tokens: Tokens, clips: int, frames: int, source: torch.Generator) -> Tensor:
        """T' of both large views, (2 B T, k, N), with k heads drawn for every clip.

        Args:
            tokens: of the large views, (2 B T, ...).
            clips: B.
            frames: T.
            source: of the draw.
        """
        heads = sampling.subsets(clips, tokens.queries.shape[1], self.objects, source)
        heads = heads.to(tokens.cls.device, non_blocking=True).repeat(2, 1)  # (2 B, k)
        if self.tracking:
            return self.tracker(tokens, heads, frames)
        return self.tracker(tokens, heads.repeat_interleave(frames, 0))
