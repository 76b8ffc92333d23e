"""The key ``mixup``: which adapter trains a model with a mixer."""

from __future__ import annotations

import sys
from dataclasses import fields
from importlib import import_module

from mmengine.logging import MMLogger
from torch import nn

from mixplug.mixers.base import Mixer

# Class of a host's models, and the adapter for them. What the host has not loaded is not loaded
# here: no model is of a class whose module was never imported.
_HOSTS = {
    ("mmpretrain.models", "ImageClassifier"): "mixplug.hosts.mm.mixing.classifier",
    ("mmdet.models.detectors", "BaseDetector"): "mixplug.hosts.mm.mixing.detector",
    ("mmseg.models.segmentors", "BaseSegmentor"): "mixplug.hosts.mm.mixing.segmentor",
}


def train_with(model: nn.Module, mixer: Mixer) -> None:
    """Let a host's model train with a mixer. Its parameters and its testing stay as they are.

    The log says that it does, and where.

    Raises:
        ValueError: a model of no known host; or what its adapter refuses.
    """
    for (module, name), adapter in _HOSTS.items():
        base = getattr(sys.modules.get(module), name, None)
        if base is not None and isinstance(model, base):
            mixed = import_module(adapter).train_with(model, mixer)
            told = MMLogger.get_current_instance()
            told.info("%s mixes %s (%s)", mixer.name, mixed, _settings(mixer))
            return
    raise ValueError(
        "The mixup key looks for the classifier of mmpretrain's ImageClassifier (its head), of "
        "mmdet's two-stage detectors (roi_head.bbox_head.fc_cls) or of mmseg's EncoderDecoder "
        f"(decode_head.conv_seg), got {type(model).__name__} with "
        f"{type(getattr(model, 'head', None)).__name__} as its head."
    )


def _settings(mixer: Mixer) -> str:
    """How often it mixes, and what of it is not by default."""
    shown = [
        f"{field.name}={getattr(mixer, field.name)!r}"
        for field in fields(mixer)
        if field.name == "prob" or getattr(mixer, field.name) != field.default
    ]
    return ", ".join(shown) or "as by default"
