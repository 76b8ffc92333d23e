"""The key ``mixup``: choose the adapter that trains a model with a mixer."""

from __future__ import annotations

import sys
from dataclasses import fields
from importlib import import_module

from mmengine.logging import MMLogger
from torch import nn

from mixplug.mixers.base import Mixer

# Base class of a framework's models, and the module that trains them. The framework is not imported
# here: if nobody has imported it, the model is not one of its own.
_HOSTS = {
    ("mmpretrain.models", "ImageClassifier"): "mixplug.hosts.mm.mixing.classifier",
    ("mmdet.models.detectors", "BaseDetector"): "mixplug.hosts.mm.mixing.detector",
    ("mmseg.models.segmentors", "BaseSegmentor"): "mixplug.hosts.mm.mixing.segmentor",
}


def train_with(model: nn.Module, mixer: Mixer) -> None:
    """Train a model with a mixer. Its parameters and its behavior at test time stay.

    The log says which mixer is used, where it mixes, and with which settings.

    Raises:
        ValueError: an unsupported model; the message says what is supported.
    """
    for (module, name), adapter in _HOSTS.items():
        base = getattr(sys.modules.get(module), name, None)
        if base is not None and isinstance(model, base):
            mixed = import_module(adapter).train_with(model, mixer)
            logger = MMLogger.get_current_instance()
            logger.info("%s mixes %s (%s)", mixer.name, mixed, _settings(mixer))
            return
    raise ValueError(
        "The mixup key looks for the classifier of mmpretrain's ImageClassifier (its head), of "
        "mmdet's two-stage detectors (roi_head.bbox_head.fc_cls) or of mmseg's EncoderDecoder "
        f"(decode_head.conv_seg), got {type(model).__name__} with "
        f"{type(getattr(model, 'head', None)).__name__} as its head."
    )


def _settings(mixer: Mixer) -> str:
    """Its probability and the settings that differ from the defaults."""
    shown = [
        f"{field.name}={getattr(mixer, field.name)!r}"
        for field in fields(mixer)
        if field.name == "prob" or getattr(mixer, field.name) != field.default
    ]
    return ", ".join(shown) or "as by default"
