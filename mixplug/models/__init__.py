"""Networks as plain torch modules: small CNNs, vision transformers, self-distillation, tracking.

Importing this package needs torch alone. ``mixplug.models.X`` is the same as the name in its
room, such as ``mixplug.models.self_distillation.Views``. To use the small networks by
``timm.create_model``, call ``mixplug.models.register_in_timm()``. In mm configs their trunks are
``mixplug.PreActResNet`` and ``mixplug.WideResNet``.
"""

from mixplug.models import heads, self_distillation, small, tracking, vit
from mixplug.models.heads import *  # noqa: F403
from mixplug.models.self_distillation import *  # noqa: F403
from mixplug.models.small import *  # noqa: F403
from mixplug.models.tracking import *  # noqa: F403
from mixplug.models.vit import *  # noqa: F403

__all__ = [
    *heads.__all__,
    *self_distillation.__all__,
    *small.__all__,
    *tracking.__all__,
    *vit.__all__,
]
