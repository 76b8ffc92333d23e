"""Small convolutional networks of the thesis."""

from importlib import import_module

from mixplug.models.small.preact_resnet import PreActResNet, preact_resnet18
from mixplug.models.small.vgg_gap import VGGGAP
from mixplug.models.small.wide_resnet import WideResNet, wide_resnet16_8
from mixplug.optional import optional

__all__ = [
    "VGGGAP",
    "PreActResNet",
    "WideResNet",
    "preact_resnet18",
    "register_in_timm",
    "wide_resnet16_8",
]


def register_in_timm() -> None:
    """Register ``preact_resnet18`` and ``wide_resnet16_8`` for ``timm.create_model``.

    Raises:
        ImportError: timm is not installed.
    """
    optional("timm", "timm", "register_in_timm")
    import_module("mixplug.models.small.timm_entrypoints")
