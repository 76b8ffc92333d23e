"""Networks of the small-image experiments, as plain torch modules.

Importing this package needs torch alone. To name them in ``timm.create_model``, import
``mixplug.models.small.timm_entrypoints``; mm configs find the same trunks as
``mixplug.PreActResNet`` and ``mixplug.WideResNet``.
"""

from mixplug.models.small.preact_resnet import PreActResNet, preact_resnet18
from mixplug.models.small.wide_resnet import WideResNet, wide_resnet16_8

__all__ = ["PreActResNet", "WideResNet", "preact_resnet18", "wide_resnet16_8"]
