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
    """Feature maps of several blocks of a ViT, for images of any size (6.5.3).

    The parameters are those of timm's model, in ``model``. timm interpolates position embeddings
    to the size of the image. Blocks and norms that no output uses are removed, so that all
    parameters get gradients.

    Args:
        model_name: name of a model, as for ``timm.create_model``, such as 'vit_small_patch16_224'.
            Nothing is downloaded unless ``pretrained=True`` is one of ``options``.
        out_indices: blocks whose outputs are returned, counted from 0, or from -1 backwards. The
            default is layers 4, 6, 8 and 12 of the thesis (6.5.3). A shallow network may name a
            block twice.
        final_norm: whether the last norm of the network is applied to every output.
        window: side in patches of the windows within which attention is computed; 0 is global
            attention. Norms, MLPs and stochastic depth still treat the image as a whole.
        global_blocks: blocks with global attention in any case; None is the last of every quarter.
        frozen_stages: what is not trained and stays in evaluation mode: -1 nothing, 0 the patch
            and position embeddings, n also the first n blocks, the depth also the last norm.
        with_cp: whether blocks run again in the backward pass, which saves memory. With windows,
            all images of one backward pass must then have the same size.
        **options: of timm's model, such as ``drop_path_rate``, or ``img_size``, the image size of
            the stored position embeddings.

    Attributes:
        num_features: D, channels of every map.

    Raises:
        ImportError: timm is not installed.
        KeyError: an option that neither this class nor timm's model has.
        ValueError: timm has no such model; the model is not a plain VisionTransformer, for example
            a hybrid with a CNN; an index is out of range; windows in blocks without a module
            ``attn``.
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
            raise ValueError(
                f"out_indices needs blocks in ascending order, got {tuple(out_indices)}."
            )
        if window < 0 or not -1 <= frozen_stages <= depth:
            raise ValueError(
                f"TimmViT needs window >= 0 and frozen_stages in [-1, {depth}], got {window} and "
                f"{frozen_stages}."
            )
        self._blocks = sorted(set(self.out_indices))
        self.model.prune_intermediate_layers(self._blocks, prune_norm=not final_norm)
        self.model.set_grad_checkpointing(with_cp)
        self.model.is_init = True  # or mmengine runs timm's init_weights over loaded weights
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
            ValueError: the size is not a multiple of the patch p.
        """
        self._grid = self._grid_of(x)
        maps = self.model.forward_intermediates(
            x, self._blocks, norm=self.final_norm, intermediates_only=True
        )
        return tuple(maps[self._blocks.index(index)] for index in self.out_indices)

    def train(self, mode: bool = True) -> TimmViT:
        """Set the training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen():
            if isinstance(module, nn.Module):
                module.eval()
        return self

    def whole(self) -> nn.Module:
        """The complete model of timm, for example for pretraining.

        Raises:
            ValueError: blocks or the last norm were removed, attention is computed in windows, or
                parts are frozen.
        """
        why = {
            "out_indices without the last block, so that later blocks are missing": (
                len(self.model.blocks) < self._depth
            ),
            "final_norm=False, so that the last norm is missing": not self.final_norm,
            f"window={self.window}": self.window > 0,
            f"frozen_stages={self.frozen_stages}": self.frozen_stages >= 0,
        }
        found = [reason for reason, holds in why.items() if holds]
        if found:
            raise ValueError(
                f"A complete VisionTransformer is needed, got a TimmViT with {'; '.join(found)}. "
                f"Build it with out_indices=(-1,), final_norm=True, window=0 and frozen_stages=-1."
            )
        model: nn.Module = self.model
        return model

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """The depth of a parameter and the number of depths, counted as in mmpretrain.

        Patch and position embeddings have depth 0, block i has i + 1, and later parameters have
        the last depth.

        Args:
            param_name: full name of the parameter in the model.
            prefix: prefix of the backbone in such names.
        """
        depths = len(self.model.blocks) + 2
        if not param_name.startswith(f"{prefix}model."):
            return depths - 1, depths
        name = param_name.removeprefix(f"{prefix}model.")
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1, depths
        return (depths - 1 if name.startswith("norm.") else 0), depths

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        """Modules and parameters that are not trained."""
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
    """Number of blocks of a model, after a check that it is timm's VisionTransformer."""
    home = sys.modules["timm.models.vision_transformer"]  # imported with the model
    if not isinstance(model, home.VisionTransformer):
        raise ValueError(
            f"TimmViT needs a VisionTransformer of timm, {name} is a {type(model).__name__}. "
            f"Use mixplug.TimmBackbone, which returns the last map of any model."
        )
    return len(model.blocks)


def _require_patches(model: nn.Module, name: str) -> None:
    """Refuse a hybrid network, whose patches are cut from the map of a CNN."""
    found = getattr(model, "patch_embed", None)
    if not isinstance(found, sys.modules["timm.layers"].PatchEmbed):
        raise ValueError(
            f"TimmViT needs patches of the image (timm.layers.PatchEmbed), {name} has "
            f"{type(found).__name__}. Use mixplug.TimmBackbone, which returns the last map of any "
            f"model."
        )


def _attention(block: nn.Module) -> nn.Module:
    found = getattr(block, "attn", None)
    if not isinstance(found, nn.Module):
        raise ValueError(
            f"Windows need blocks whose attention is a module 'attn', got {type(block).__name__}: "
            f"set window=0."
        )
    return found


def _within(indices: Sequence[int], depth: int, what: str) -> tuple[int, ...]:
    """Block numbers counted from 0, of numbers that may be negative."""
    if not all(-depth <= index < depth for index in indices):
        raise ValueError(
            f"{what} needs blocks in [-{depth}, {depth}), got {tuple(indices)}: the network has "
            f"{depth} blocks."
        )
    return tuple(index % depth for index in indices)
