"""DoRA: the student sees objects that attention heads discover and a tracker follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.track import MASKS, masked_frames, patch_masks
from mixplug.models.self_distillation.distillation import SelfDistillation
from mixplug.models.self_distillation.outputs import TeacherOutput
from mixplug.models.self_distillation.tracker import Tracker, object_tracks
from mixplug.models.vit.encoder_base import Tokens

__all__ = ["DoRA", "Tracker", "object_tracks"]

MASKED_BY = ("object", "random")


@register("DoRA", kind="selfsup", reference="thesis 6.4")
class DoRA(SelfDistillation):
    """Discover objects in the first frame of a clip, track them, and learn from each of them.

    The student sees k masked versions of every large view. The masks come from the teacher's tokens
    of the same view, the target from its other view (6.8). The losses are ``loss_object`` and
    ``loss_local``; the monitor ``mask_share`` is the mean share of a view that a mask keeps.

    Other arguments are those of :class:`mixplug.models.self_distillation.SelfDistillation`.

    Args:
        objects: k, at most the number h of heads of the last block. For every clip k heads are
            drawn, the same for both views.
        tracking: True tracks the objects of the first frame; False discovers objects in every frame
            (DoRA* for images).
        mask: 'object'; or 'random' for k random block-wise masks (Table 6.7c), where no setting of
            the tracker matters.
        mask_kind: 'binary', or 'soft' for the attention itself, (6.7) as printed.
        mask_ratio: the share of patches that random masks hide, or a range of shares.
        refine: whether Sinkhorn-Knopp makes objects distinct, (6.4) and (6.5).
        eps: ε, weight of the entropy in Sinkhorn-Knopp.
        iters: number of iterations of Sinkhorn-Knopp.
        normalize: whether Sinkhorn-Knopp works on ℓ2-normalized output embeddings.
        plan: 'columns' or 'joint', see :func:`mixplug.functional.object_plan`.
        attention_scale: 'head' or 'dim', see :func:`mixplug.functional.cls_attention`.
        track_scale: 'dim' or a number, see :func:`mixplug.functional.track`.

    Raises:
        ValueError: more objects than heads, or a setting that is not allowed.
    """

    loss_name = "loss_object"

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
        **settings: Any,
    ) -> None:
        super().__init__(backbone, **settings)
        available = self.student_encoder.heads
        if not 1 <= objects <= available:
            raise ValueError(
                f"DoRA needs objects between 1 and the {available} heads of the last block, got "
                f"{objects}: track fewer objects, or give that block more heads by heads=..."
            )
        self._require(mask in MASKED_BY, "mask", mask, f"in {MASKED_BY}")
        self._require(mask_kind in MASKS, "mask_kind", mask_kind, f"in {MASKS}")
        sampling.share_range(mask_ratio)
        self.objects, self.tracking = objects, tracking
        self.mask, self.mask_kind, self.mask_ratio = mask, mask_kind, mask_ratio
        self.tracker = Tracker(
            refine=refine, eps=eps, iters=iters, normalize=normalize, plan=plan,
            attention_scale=attention_scale, track_scale=track_scale,
        )  # fmt: skip

    def teach(self, large: Tensor, generator: torch.Generator) -> TeacherOutput:
        """Class tokens of the teacher, and frames as they are seen through every mask (6.7)."""
        frames, encoder = large.flatten(0, 2), self.teacher_encoder
        if self.mask == "random":
            grid = encoder.grid((large.shape[-2], large.shape[-1]))
            count = len(frames) * self.objects
            hidden = sampling.block_masks(count, grid, self.mask_ratio, generator)
            kept = (~hidden).unflatten(0, (-1, self.objects)).to(frames.device)
            return self._masked(encoder.cls(frames), frames, kept.float(), grid)
        tokens = encoder.tokens(frames)
        attention = self.attention(tokens, large.shape[1], large.shape[2], generator)
        masks = patch_masks(attention, self.mask_kind)
        return self._masked(tokens.cls, frames, masks, tokens.grid)

    @staticmethod
    def _masked(cls: Tensor, frames: Tensor, masks: Tensor, grid: tuple[int, int]) -> TeacherOutput:
        return TeacherOutput(cls, masked_frames(frames, masks, grid), {"mask_share": masks.mean()})

    def attention(
        self, tokens: Tokens, clips: int, frames: int, generator: torch.Generator
    ) -> Tensor:
        """T', where objects are in both large views (6.6), with k heads drawn for every clip.

        Args:
            tokens: of the large views, (2 B T, ...).
            clips: B.
            frames: T.
            generator: of the draw.

        Returns:
            (2 B T, k, N).
        """
        heads = sampling.subsets(clips, tokens.queries.shape[1], self.objects, generator)
        heads = heads.to(tokens.cls.device, non_blocking=True).repeat(2, 1)  # (2 B, k)
        if self.tracking:
            return self.tracker(tokens, heads, frames)
        return self.tracker(tokens, heads.repeat_interleave(frames, 0))
