"""timm: its classifiers in stages (input, feature map, embedding, logits)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from mixplug.blocks import before_last_block
from mixplug.hosts.retype import retype
from mixplug.layouts import Layout
from mixplug.stages import Stages
from mixplug.stages.pixels import Pixels


def timm_stages(
    model: nn.Module,
    call: Callable[[Tensor], object] | None = None,
    pixels: Pixels | Callable[[], Pixels | None] | None = None,
) -> Stages:
    """A timm classifier in stages.

    A dense loss is applied to the last map that ``feature_info`` names. The map A that AlignMixup
    aligns is the one before the last block or, if there are no blocks, after the second to last
    stage. In a transformer the last block carries mixed patches to the class token. In a CNN
    alignment directly before average pooling would have no effect.

    Args:
        model: from ``timm.create_model``, with a classifier.
        call: as in :class:`mixplug.Stages`.
        pixels: (mean, std) of the images' normalization, such as those that
            ``timm.data.resolve_model_data_config(model)`` holds, if the loader normalizes by them.

    Raises:
        ValueError: the model has no classifier.
    """
    info = getattr(model, "feature_info", None) or [{"module": None}]
    modules = dict(model.named_modules())
    named = [one["module"] if one["module"] in modules else None for one in info]
    features = before_last_block(model) or named[max(len(info) - 2, 0)]
    tail = TimmTail(model) if hasattr(model, "forward_head") else None
    return Stages(
        model, features, _classifiers(model), named[-1], map_layout(model), call, tail,
        pixels, search=True,
    )  # fmt: skip


def _classifiers(model: nn.Module) -> list[str]:
    """Names of the modules that give logits: one, or several whose mean the model returns."""
    head = model.get_classifier()
    heads = head if isinstance(head, (tuple, list, nn.ModuleList)) else [head]
    wanted = [h for h in heads if isinstance(h, nn.Module) and not isinstance(h, nn.Identity)]
    if not wanted:
        raise ValueError(
            f"{type(model).__name__} needs a classifier, got {type(head).__name__}. Create it with "
            f"num_classes > 0."
        )
    return [name for name, module in model.named_modules() if any(module is h for h in wanted)]


def map_layout(model: nn.Module) -> Layout:
    """How a timm model's ``forward_features`` holds the last map."""
    patches = getattr(model, "patch_embed", None)
    return Layout(
        channels_last=str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC"),
        prefix=getattr(model, "num_prefix_tokens", 0),
        grid=_pair(getattr(patches, "grid_size", None)),
        patch=_pair(getattr(patches, "patch_size", None)),
    )


def _pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of what timm gives as one number, as two, or not at all."""
    if size is None or isinstance(size, int):
        return None if size is None else (size, size)
    return tuple(size) if len(size) == 2 else None


class KeepsMap:
    """A timm model that keeps the output of ``forward_features`` until it is taken."""

    last_map: Tensor | None = None

    def forward_features(self, *args: Any, **kwargs: Any) -> Tensor:
        """As in the plain model."""
        self.last_map = self.plain.forward_features(self, *args, **kwargs)
        return self.last_map


class TimmTail:
    """All layers between map and classifier: timm's ``forward_head(..., pre_logits=True)``."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def prepare(self) -> None:
        """See :class:`mixplug.stages.Tail`."""
        retype(self.model, KeepsMap)

    def take(self) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """See :class:`mixplug.stages.Tail`."""
        kept, self.model.last_map = self.model.last_map, None
        return kept, partial(self.model.forward_head, pre_logits=True)
