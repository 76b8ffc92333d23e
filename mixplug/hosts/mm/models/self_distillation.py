"""Self-distillation in OpenMMLab: ``model=dict(type='mixplug.DoRA', ...)``, or 'mixplug.DINO'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import mixplug
from mixplug.hosts.mm.hooks.self_distillation import DistillationHook
from mixplug.hosts.mm.mixing.classifier import Clock
from mixplug.hosts.mm.models.backbones import TimmBackbone
from mixplug.hosts.mm.models.metric_learner import FIELD
from mixplug.models.self_distillation.distillation import SelfDistillation, Views
from mixplug.registry import MODELS


class _SelfSupervised(BaseModel):
    """A method of :mod:`mixplug.models`, whose checkpoint holds student, teacher and center.

    Args:
        backbone: config of a ViT, 'mixplug.TimmBackbone' or 'mmpretrain.VisionTransformer'.
        schedule: keys of :class:`mixplug.hosts.mm.hooks.DistillationHook`, which the Runner
            has for such a model.
        data_preprocessor: 'mixplug.ViewsPreprocessor' without ``type``.
        init_cfg: mmengine's.
        **settings: keys of the method.

    Raises:
        KeyError: a key that the method has not.
        ValueError: see the method.
    """

    method_name: ClassVar[str]

    def __init__(
        self,
        backbone: Mapping[str, Any],
        schedule: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Any = None,
        **settings: Any,
    ) -> None:
        if data_preprocessor is None or isinstance(data_preprocessor, Mapping):
            plain = {"type": "mixplug.ViewsPreprocessor"}
            data_preprocessor = {**plain, **(data_preprocessor or {})}
        super().__init__(data_preprocessor, init_cfg)
        built = MODELS.build(backbone)
        built.init_weights()  # now: the teacher becomes a copy, which the Runner would not reach
        vit = built.model if isinstance(built, TimmBackbone) else built
        spec = {"type": self.method_name, "backbone": vit, **settings}
        self.method: SelfDistillation = mixplug.build(spec, kind="selfsup")
        self.clock = Clock()
        self.hook = DistillationHook(**(schedule or {}))

    @property
    def own_hooks(self) -> list[Hook]:
        """What the Runner gets for this model."""
        return [self.hook]

    def forward(
        self,
        inputs: Tensor | None = None,
        data_samples: list[DataSample] | None = None,
        views: Views | None = None,
        mode: str = "tensor",
    ) -> Any:
        """The losses of views; or the teacher's class tokens (B, D) of images.

        Args:
            inputs: images (B, 3, H, W), for 'tensor' and 'predict'.
            data_samples: theirs, which 'predict' gives back with the embedding.
            views: of clips, for 'loss'.
            mode: 'tensor', 'loss' or 'predict'.

        Raises:
            ValueError: another mode, or a mode without what it needs.
        """
        if mode == "loss" and views is not None:
            self.method.seed = self.clock.seed
            return self.method(views)
        if mode in ("tensor", "predict") and inputs is not None:
            with torch.no_grad():
                tokens = self.method.teacher_encoder.cls(inputs)
            return tokens if mode == "tensor" else _with(tokens, data_samples)
        raise ValueError(
            f"{type(self).__name__} needs mode 'loss' with views, as mixplug.VideoClips and "
            f"mixplug.ViewsTransform give them, or 'tensor' or 'predict' with images; got "
            f"{mode!r} with views {views is not None} and images {inputs is not None}."
        )


def _with(tokens: Tensor, data_samples: list[DataSample] | None) -> list[DataSample]:
    samples = data_samples or [DataSample() for _ in tokens]
    for sample, token in zip(samples, tokens, strict=True):
        sample.set_field(token, FIELD)
    return samples


@MODELS.register_module()
class DoRA(_SelfSupervised):
    """DoRA (6.4): discovers objects in a clip, tracks them, and distils each of them.

    It has the keys of :class:`mixplug.models.DoRA` too::

        model = dict(
            type='mixplug.DoRA', objects=3,
            backbone=dict(
                type='mixplug.TimmBackbone', model_name='vit_small_patch16_224',
                dynamic_img_size=True))
    """

    method_name = "DoRA"


@MODELS.register_module()
class DINO(_SelfSupervised):
    """DINO, the baseline of DoRA from the same parts; with the keys of mixplug.models.DINO too."""

    method_name = "DINO"
