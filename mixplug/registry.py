"""Child registries of mmengine, in the scope ``mixplug``.

mmengine imports this file by itself for any ``type='mixplug.X'``, and hides an ImportError of it.
"""

from __future__ import annotations

from mmengine import registry as root

_SCOPE = {"scope": "mixplug"}

DATASETS = root.Registry(
    "dataset", parent=root.DATASETS, locations=["mixplug.adapters.mm_data"], **_SCOPE
)
HOOKS = root.Registry("hook", parent=root.HOOKS, locations=["mixplug.adapters.mm_resume"], **_SCOPE)
MODELS = root.Registry(
    "model",
    parent=root.MODELS,
    locations=["mixplug.adapters.mm_backbones", "mixplug.adapters.mm_classifier"],
    **_SCOPE,
)
