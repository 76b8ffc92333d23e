"""The ``mixup`` key: find the adapter for a model."""

from __future__ import annotations

import sys
from dataclasses import fields
from importlib import import_module

from mmengine.logging import MMLogger
from torch import nn

from mixplug.mixers.base import Mixer

# Class of a host's models to the adapter for them. Only loaded modules are looked at: if a host is
# not imported, the model cannot be one of its models.
_HOSTS = {
    ("mmpretrain.models", "ImageClassifier"): "mixplug.hosts.mm.mixing.classifier",
    ("mmdet.models.detectors", "BaseDetector"): "mixplug.hosts.mm.mixing.detector",
    ("mmseg.models.segmentors", "BaseSegmentor"): "mixplug.hosts.mm.mixing.segmentor",
}


def train_with(model: nn.Module, mixer: Mixer) -> None:
    """Make a model train with a mixer. Its parameters and its testing do not change.

    The log says what is mixed.

    Raises:
        ValueError: the model belongs to no known host, or the adapter does not support it.
    """
    for (module, name), adapter in _HOSTS.items():
        base = getattr(sys.modules.get(module), name, None)
        if base is not None and isinstance(model, base):
            mixed = import_module(adapter).train_with(model, mixer)
            logger = MMLogger.get_current_instance()
            logger.info("%s mixes %s (%s)", mixer.name, mixed, _settings(mixer))
            return
    raise ValueError(
        "The mixup key works for mmpretrain's ImageClassifier (head), mmdet's two-stage detectors "
        "(roi_head.bbox_head.fc_cls) and mmseg's EncoderDecoder (decode_head.conv_seg), got "
        f"{type(model).__name__} with {type(getattr(model, 'head', None)).__name__} as its head."
    )


def _settings(mixer: Mixer) -> str:
    """The probability of mixing, and all settings that differ from their defaults."""
    shown = [
        f"{field.name}={getattr(mixer, field.name)!r}"
        for field in fields(mixer)
        if field.name == "prob" or getattr(mixer, field.name) != field.default
    ]
    return ", ".join(shown) or "default settings"
