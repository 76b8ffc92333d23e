"""timm classifiers in stages: input, feature map, embedding, logits."""

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

    A dense loss works on the last map that ``feature_info`` names. The map A to be aligned is that
    before the last block (or, where there is no telling, of the last stage but one), for CNNs and
    transformers alike: the block can carry mixed patches to a class token, and in any network
    alignment directly before average pooling would be in vain.

    Args:
        model: from ``timm.create_model``, with a classifier.
        call: as in :class:`mixplug.Stages`.
        pixels: (mean, std) of the images' normalization, such as those that
            ``timm.data.resolve_model_data_config(model)`` holds, if the loader normalizes by them.

    Raises:
        ValueError: no single classifier module, or no ``feature_info``.
    """
    head = model.get_classifier()
    if not isinstance(head, nn.Module) or isinstance(head, nn.Identity):
        raise ValueError(
            f"{type(model).__name__} has no single classifier module to mix before, got "
            f"{type(head).__name__}. Give it num_classes > 0, and one head only."
        )
    classifier = next(name for name, module in model.named_modules() if module is head)
    info = getattr(model, "feature_info", None)
    if not info:
        raise ValueError(
            f"{type(model).__name__} has no feature_info, so its feature map is not known. Use "
            f"mixplug.Stages(model, features=NAME, classifier={classifier!r})."
        )
    last = info[-1]["module"]
    layout = map_layout(model)
    features = before_last_block(model) or info[max(len(info) - 2, 0)]["module"]
    return Stages(model, features, classifier, last, layout, call, TimmTail(model), pixels)


def map_layout(model: nn.Module) -> Layout:
    """How a timm model's last map lies in what ``forward_features`` gives."""
    patches = getattr(model, "patch_embed", None)
    return Layout(
        channels_last=str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC"),
        prefix=getattr(model, "num_prefix_tokens", 0),
        grid=getattr(patches, "grid_size", None),
        patch=getattr(patches, "patch_size", None),
    )


class KeepsMap:
    """A timm model that keeps the output of its trunk until it is taken."""

    last_map: Tensor | None = None

    def forward_features(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the plain model gives."""
        self.last_map = self.plain.forward_features(self, *args, **kwargs)
        return self.last_map


class TimmTail:
    """Pooling and what precedes the classifier: timm's ``forward_head(..., pre_logits=True)``."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def prepare(self) -> None:
        """See :class:`mixplug.stages.Tail`."""
        retype(self.model, KeepsMap)

    def take(self) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """See :class:`mixplug.stages.Tail`."""
        kept, self.model.last_map = self.model.last_map, None
        return kept, partial(self.model.forward_head, pre_logits=True)
