"""Self-distillation in OpenMMLab: ``model=dict(type='mixplug.NAME', ...)``, such as 'mixplug.DoRA'.

Every method of the catalog has a model. Importing this module makes them, and a later
``mixplug.register(NAME, kind='selfsup')`` makes the model of that method.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import mixplug
from mixplug import catalog
from mixplug.docstrings import meanings
from mixplug.hosts.mm.hooks.self_distillation import DistillationHook
from mixplug.hosts.mm.mixing.classifier import Clock
from mixplug.hosts.mm.models.backbones import TimmBackbone
from mixplug.hosts.mm.models.metric_learner import FIELD
from mixplug.models.self_distillation import SelfDistillation, Views
from mixplug.registry import MODELS
from mixplug.renamed import current_keys
from mixplug.signatures import passing_on


class SelfDistillationModel(BaseModel):
    """Base of the models of all methods; a checkpoint holds student, teacher and centers.

    ::

        model = dict(
            type='mixplug.DoRA', objects=3,
            backbone=dict(
                type='mixplug.TimmBackbone', model_name='vit_small_patch16_224',
                dynamic_img_size=True))

    Args:
        backbone: config of a vision transformer: 'mixplug.TimmBackbone', 'mixplug.TimmViT' or
            'mmpretrain.VisionTransformer'.
        schedule: keys of 'mixplug.DistillationHook', which the Runner uses for this model.
        data_preprocessor: keys of 'mixplug.ViewsPreprocessor'.
        init_cfg: weight initialization by mmengine, such as dict(type='mixplug.Pretrained', ...).
        **settings: keys of the method; the signature of a model has them one by one.

    Attributes:
        method: the method itself, an object of :attr:`method_class`.

    Raises:
        KeyError: an unknown key; the message suggests the nearest.
        ValueError: see the method.
    """

    method_class: type[SelfDistillation]

    def __init__(
        self,
        backbone: Mapping[str, Any],
        schedule: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Any = None,
        **settings: Any,
    ) -> None:
        settings = current_keys(self.method_class, settings)
        catalog.require_known(type(self), settings)
        if data_preprocessor is None or isinstance(data_preprocessor, Mapping):
            plain = {"type": "mixplug.ViewsPreprocessor"}
            data_preprocessor = {**plain, **(data_preprocessor or {})}
        super().__init__(data_preprocessor, init_cfg)
        built = MODELS.build(backbone)
        built.init_weights()  # now: the teacher becomes a copy, which the Runner does not reach
        vit = built.model if isinstance(built, TimmBackbone) else built
        spec = {"type": self.method_class, "backbone": vit, **settings}
        self.method: SelfDistillation = mixplug.build(spec, kind="selfsup")
        self.clock = Clock()
        self.hook = DistillationHook(**(schedule or {}))

    @property
    def own_hooks(self) -> list[Hook]:
        """Hooks that the Runner registers for this model."""
        return [self.hook]

    def forward(
        self,
        inputs: Tensor | None = None,
        data_samples: list[DataSample] | None = None,
        views: Views | None = None,
        mode: str = "tensor",
    ) -> Any:
        """The losses of views, or the teacher's class tokens (B, D) of images.

        Args:
            inputs: images (B, 3, H, W), for 'tensor' and 'predict'.
            data_samples: of the images; 'predict' returns them with the embedding.
            views: of clips, for 'loss'.
            mode: 'tensor', 'loss' or 'predict'.

        Raises:
            ValueError: another mode, or the input of the mode is missing.
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


def model_of(entry: catalog.Entry) -> type[SelfDistillationModel]:
    """The model class of a method in the catalog: its name, and its keys beside mm's own."""
    signature = passing_on(SelfDistillationModel.__init__, entry.target)
    members = {
        "method_class": entry.target,
        "__doc__": _doc(entry.target, signature),
        "__module__": __name__,
        "__signature__": signature,
    }
    return type(entry.name, (SelfDistillationModel,), members)


def _doc(method: Callable[..., Any], keys: inspect.Signature) -> str:
    """The text of a method, with the meaning of every key of its model."""
    text = (inspect.getdoc(method) or "").partition("\nArgs:\n")[0].rstrip()
    texts = {**meanings(method), **meanings(SelfDistillationModel)}
    known = [f"    {name}: {texts[name]}" for name in keys.parameters if name in texts]
    return "\n".join([text, "", "Args:", *known])


def _enter(entry: catalog.Entry) -> None:
    """Register the model of a method; a method that is registered again replaces its model.

    A name that another model has is a warning and no error, since one package would otherwise make
    all models unavailable.
    """
    known = MODELS.module_dict.get(entry.name)
    if known is not None and not _is_made(known):
        warnings.warn(
            f"The method {entry.name!r} has no model in OpenMMLab, because mixplug.{entry.name} is "
            f"{known.__module__}.{known.__qualname__}. Register the method under another name.",
            stacklevel=3,
        )
        return
    model = model_of(entry)
    MODELS.register_module(entry.name, force=True, module=model)
    if MODELS.parent.module_dict.get(entry.name) in (None, known):  # without the prefix
        MODELS.parent.register_module(entry.name, force=True, module=model)


def _is_made(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, SelfDistillationModel)


def __getattr__(name: str) -> type[SelfDistillationModel]:
    """The model classes, which are made and not written: pickles and imports find them here."""
    found = MODELS.module_dict.get(name)
    if _is_made(found):
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(n for n, one in MODELS.module_dict.items() if _is_made(one))])


catalog.follow(_enter, kind="selfsup")
