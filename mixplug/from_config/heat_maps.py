"""Heat maps of an mmpretrain classifier: CAM of a CNN, attention of a vision transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from mmpretrain.models import ImageClassifier, VisionTransformer
from torch import Tensor

from mixplug.evaluation.wsol import HeatMaps
from mixplug.functional.localization import class_activation_map
from mixplug.functional.track import cls_attention
from mixplug.hosts.mm.mixing.classifier import mm_stages
from mixplug.models.vit.encoder import as_encoder
from mixplug.models.vit.encoder_base import outputs_of

_TOLERANCE = 1e-2  # of logits, relative to the largest: maps may be computed in TF32


class ActivationMaps:
    """CAM of the given classes, see :func:`mixplug.functional.class_activation_map`.

    The first batch is used to check that the means of the maps give the logits.

    Raises:
        ValueError: the classifier is not linear, or there is another layer than average pooling
            between the last feature map and the classifier.
    """

    name = "cam"

    def __init__(self, model: ImageClassifier) -> None:
        self.stages = mm_stages(model)
        self._checked = False
        if self.stages.linear is None:
            raise ValueError(
                f"CAM needs a linear classifier, got {type(self.stages.classifier).__name__}."
            )

    def __call__(self, inputs: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and maps of a batch."""
        forward, last = self.stages.with_map(inputs, self.stages.last)
        layer: Any = self.stages.linear
        weight = layer.weight.flatten(1)
        if last.shape[1] != weight.shape[1]:
            raise ValueError(
                f"CAM needs a classifier with {last.shape[1]} inputs, the channels of the last "
                f"feature map, got one with {weight.shape[1]}."
            )
        maps = class_activation_map(last, weight, classes)
        if not self._checked:
            self._check(maps, layer.bias, forward.logits, classes)
        return forward.logits, maps

    def _check(self, maps: Tensor, bias: Tensor | None, logits: Tensor, classes: Tensor) -> None:
        added = maps.mean((1, 2)) + (0 if bias is None else bias[classes])
        given = logits.gather(1, classes[:, None])[:, 0]
        if (added - given).abs().max() > _TOLERANCE * logits.abs().max().clamp_min(1):
            raise ValueError(
                "CAM requires that only average pooling is between the last feature map and the "
                "classifier, but the means of the maps are not the logits of this network. For a "
                "VisionTransformer use --maps attention."
            )
        self._checked = True


class ClassTokenAttention:
    """Attention of the class token in the last block, mean over heads (6.1); same for all classes.

    Raises:
        ValueError: the backbone is not a VisionTransformer with a class token, see
            :func:`mixplug.models.vit.as_encoder`.
    """

    name = "attention"

    def __init__(self, model: ImageClassifier) -> None:
        self.model, self.encoder = model, as_encoder(model.backbone)

    def __call__(self, inputs: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and maps of a batch; the classes are ignored."""
        with outputs_of(self.model.backbone) as outputs:
            tokens = self.encoder.tokens(inputs)
        features: Any = outputs[0]
        if self.model.with_neck:
            features = self.model.neck(features)
        attention = cls_attention(tokens.queries, tokens.keys, tokens.prefix).mean(1)
        return self.model.head(features), attention.unflatten(-1, tokens.grid)


MAPS: Mapping[str, Callable[[ImageClassifier], HeatMaps]] = MappingProxyType(
    {kind.name: kind for kind in (ActivationMaps, ClassTokenAttention)}
)


def heat_maps_of(model: torch.nn.Module, kind: str | None = None) -> HeatMaps:
    """The function that computes heat maps of a classifier.

    Args:
        model: mmpretrain's ImageClassifier, in evaluation mode.
        kind: 'cam', 'attention', or None, which takes attention for a VisionTransformer and CAM for
            any other backbone.

    Raises:
        ValueError: an unknown kind, or another model; see :class:`ActivationMaps` and
            :class:`ClassTokenAttention`.
    """
    if not isinstance(model, ImageClassifier):
        raise ValueError(
            f"Heat maps need mmpretrain's ImageClassifier, got {type(model).__name__}."
        )
    kind = kind or ("attention" if isinstance(model.backbone, VisionTransformer) else "cam")
    if kind not in MAPS:
        raise ValueError(f"Heat maps need a kind in {tuple(MAPS)}, got {kind!r}.")
    return MAPS[kind](model)
