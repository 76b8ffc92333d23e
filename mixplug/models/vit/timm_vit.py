"""A vision transformer of timm as the backbone of a detector or segmentor."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mixplug.catalog import keys_of, register, suggest
from mixplug.models.vit.from_checkpoint import timm_model
from mixplug.models.vit.windows import Grid, from_windows, to_windows


@register("TimmViT", kind="backbone", reference="thesis 6.5.3", hosts=("mm", "torch"))
class TimmViT(nn.Module):
    """Maps of several blocks of a ViT, for images of any size (6.5.3).

    Its parameters are those of timm's model, in ``model``; positions are interpolated to the image
    by timm, at every size. Blocks and norms of which nothing is used are not there, so that all
    parameters get gradients.

    Args:
        model_name: as for ``timm.create_model``, such as 'vit_small_patch16_224'. Nothing is
            downloaded unless ``pretrained=True`` is one of ``options``.
        out_indices: blocks whose outputs are the levels, from 0, or from -1 backwards; layers 4, 6,
            8 and 12 of 6.5.3. A shallow network may give a block twice.
        final_norm: whether the network's last norm follows each of them.
        window: side in patches of the windows in which blocks attend; 0 attends to all. All else of
            a block sees the image as a whole, as its norms, its MLP and drop path do.
        global_blocks: those that attend to all in any case; None is the last of every quarter.
        frozen_stages: how much is not trained and stays in evaluation mode: -1 nothing, 0 the patch
            and position embeddings, n also the first n blocks, all of them also the last norm.
        with_cp: whether blocks are run again in the backward pass, which saves memory. With
            windows, all images until a backward pass are then of one size.
        **options: of timm's model, such as ``drop_path_rate`` or ``img_size``, the size that
            positions are kept for.

    Attributes:
        num_features: D, channels of every level.

    Raises:
        ImportError: timm is not installed.
        KeyError: an option that neither this class nor timm's model has.
        ValueError: a name that timm has not; a model of another kind, hybrids of a CNN among them;
            an index beyond the depth; windows in blocks without an attention of their own.
    """

    model: Any  # timm's

    def __init__(
        self,
        model_name: str = "vit_small_patch16_224",
        out_indices: Sequence[int] = (3, 5, 7, 11),
        final_norm: bool = False,
        window: int = 0,
        global_blocks: Sequence[int] | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.model = _made(model_name, options)
        self._depth = depth = _depth(self.model, model_name)
        self.out_indices = _within(out_indices, depth, "out_indices")
        _require_patches(self.model, model_name)
        if list(self.out_indices) != sorted(self.out_indices) or not self.out_indices:
            raise ValueError(f"out_indices needs blocks in order, got {tuple(out_indices)}.")
        if window < 0 or not -1 <= frozen_stages <= depth:
            raise ValueError(
                f"TimmViT needs window >= 0 and frozen_stages in [-1, {depth}], got {window} and "
                f"{frozen_stages}."
            )
        self._blocks = sorted(set(self.out_indices))
        self.model.prune_intermediate_layers(self._blocks, prune_norm=not final_norm)
        self.model.set_grad_checkpointing(with_cp)
        self.model.is_init = True  # else mmengine has timm's init_weights run over loaded weights
        self.final_norm, self.window, self.frozen_stages = final_norm, window, frozen_stages
        self.num_features: int = self.model.embed_dim
        self._grid: Grid = (0, 0)
        quarter = max(1, depth // 4)
        chosen = _within(
            range(quarter - 1, depth, quarter) if global_blocks is None else global_blocks,
            depth,
            "global_blocks",
        )
        if window:
            for number, block in enumerate(self.model.blocks):
                if number not in chosen:
                    attention = _attention(block)
                    attention.register_forward_pre_hook(self._cut, with_kwargs=True)
                    attention.register_forward_hook(self._join)
        for module in self._frozen():
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) to maps (B, D, H / p, W / p), one for each of ``out_indices``.

        Raises:
            ValueError: a size that is no multiple of the patch p.
        """
        self._grid = self._grid_of(x)
        maps = self.model.forward_intermediates(
            x, self._blocks, norm=self.final_norm, intermediates_only=True
        )
        return tuple(maps[self._blocks.index(index)] for index in self.out_indices)

    def train(self, mode: bool = True) -> TimmViT:
        """As of any module, but what is frozen has no dropout at any time."""
        super().train(mode)
        for module in self._frozen():
            if isinstance(module, nn.Module):
                module.eval()
        return self

    def whole(self) -> nn.Module:
        """Timm's model, where nothing was taken out of it or put in, such as for pretraining.

        Raises:
            ValueError: blocks or the last norm are not there, blocks attend in windows, or some
                are frozen.
        """
        why = {
            "out_indices without the last block, so that those after are not there": (
                len(self.model.blocks) < self._depth
            ),
            "final_norm=False, so that the last norm is not there": not self.final_norm,
            f"window={self.window}": self.window > 0,
            f"frozen_stages={self.frozen_stages}": self.frozen_stages >= 0,
        }
        found = [reason for reason, holds in why.items() if holds]
        if found:
            raise ValueError(
                f"A whole VisionTransformer is needed, got a TimmViT with {'; '.join(found)}. Give "
                f"it out_indices=(-1,), final_norm=True, window=0 and frozen_stages=-1."
            )
        model: nn.Module = self.model
        return model

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """How deep a parameter is, and the number of depths, as mmpretrain counts them.

        Patch and position embeddings are 0, block i is i + 1, what follows the blocks is last.

        Args:
            param_name: its name in the whole network.
            prefix: of this backbone's names there.
        """
        depths = len(self.model.blocks) + 2
        if not param_name.startswith(f"{prefix}model."):
            return depths - 1, depths
        name = param_name.removeprefix(f"{prefix}model.")
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1, depths
        return (depths - 1 if name.startswith("norm.") else 0), depths

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        """What is not trained."""
        if self.frozen_stages < 0:
            return []
        model, blocks = self.model, self.model.blocks
        tokens = [p for name, p in model.named_parameters() if "." not in name]
        found = [*tokens, model.patch_embed, model.pos_drop, model.norm_pre]
        found += blocks[: self.frozen_stages]
        return found + ([model.norm] if self.frozen_stages >= len(blocks) else [])

    def _grid_of(self, x: Tensor) -> Grid:
        patch = self.model.patch_embed.patch_size
        (high, wide), (rows, columns) = patch, (x.shape[-2] // patch[0], x.shape[-1] // patch[1])
        if (rows * high, columns * wide) != tuple(x.shape[-2:]) or not rows * columns:
            raise ValueError(
                f"Images of {x.shape[-2]} x {x.shape[-1]} pixels are not divisible by the patch of "
                f"{high} x {wide}. Pad them: data_preprocessor=dict(pad_size_divisor={2 * high}) "
                f"in mmdet, size_divisor={2 * high} in mmseg."
            )
        return rows, columns

    def _cut(self, attention: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
        tokens, *rest = args
        prefix = self.model.num_prefix_tokens
        windows, mask = to_windows(tokens, self._grid, self.window, prefix)
        return (windows, *rest), kwargs if mask is None else {**kwargs, "attn_mask": mask}

    def _join(self, attention: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return from_windows(out, self._grid, self.window, self.model.num_prefix_tokens)


def _made(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        return timm_model(name, **options)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            raise
        home = sys.modules["timm.models.vision_transformer"]
        known = [*keys_of(TimmViT), *keys_of(home.VisionTransformer)]
        raise KeyError(f"TimmViT has no key {unknown[1]!r}.{suggest(unknown[1], known)}") from error


def _depth(model: nn.Module, name: str) -> int:
    """Blocks of a model that is timm's VisionTransformer."""
    home = sys.modules["timm.models.vision_transformer"]  # there since the model is
    if not isinstance(model, home.VisionTransformer):
        raise ValueError(
            f"TimmViT needs a VisionTransformer of timm, {name} is a {type(model).__name__}. "
            f"mixplug.TimmBackbone takes any model, and gives its last map."
        )
    return len(model.blocks)


def _require_patches(model: nn.Module, name: str) -> None:
    """Refuse a network whose patches are those of a CNN's map."""
    found = getattr(model, "patch_embed", None)
    if not isinstance(found, sys.modules["timm.layers"].PatchEmbed):
        raise ValueError(
            f"TimmViT needs patches of the image (timm.layers.PatchEmbed), {name} has "
            f"{type(found).__name__}. mixplug.TimmBackbone takes any model, and gives its last map."
        )


def _attention(block: nn.Module) -> nn.Module:
    found = getattr(block, "attn", None)
    if not isinstance(found, nn.Module):
        raise ValueError(
            f"Windows need blocks whose attention is a module 'attn', got {type(block).__name__}: "
            f"leave them out by window=0."
        )
    return found


def _within(indices: Sequence[int], depth: int, what: str) -> tuple[int, ...]:
    """Numbers from 0 of blocks that may be counted from the end."""
    if not all(-depth <= index < depth for index in indices):
        raise ValueError(
            f"{what} needs blocks in [-{depth}, {depth}), got {tuple(indices)}: the network has "
            f"{depth}."
        )
    return tuple(index % depth for index in indices)
