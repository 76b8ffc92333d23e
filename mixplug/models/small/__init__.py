"""Small convolutional networks of the thesis. ``timm_entrypoints`` registers them in timm."""

from mixplug.models.small.preact_resnet import PreActResNet, preact_resnet18
from mixplug.models.small.vgg_gap import VGGGAP
from mixplug.models.small.wide_resnet import WideResNet, wide_resnet16_8

__all__ = ["VGGGAP", "PreActResNet", "WideResNet", "preact_resnet18", "wide_resnet16_8"]
