"""Child registries of mmengine, in the scope ``mixplug``.

mmengine imports this file by itself for any ``type='mixplug.X'``, and hides an ImportError of it.
"""

from __future__ import annotations

from mmengine import registry as root

_SCOPE = {"scope": "mixplug"}

DATA_SAMPLERS = root.Registry(
    "data sampler",
    parent=root.DATA_SAMPLERS,
    locations=["mixplug.adapters.mm_samplers", "mixplug.adapters.mm_clips"],
    **_SCOPE,
)
DATASETS = root.Registry(
    "dataset",
    parent=root.DATASETS,
    locations=[
        "mixplug.adapters.mm_data",
        "mixplug.adapters.mm_cub",
        "mixplug.adapters.mm_image_folders",
        "mixplug.adapters.mm_outside",
        "mixplug.adapters.mm_open_domain",
        "mixplug.adapters.mm_clips",
        "mixplug.adapters.mm_tracker",
    ],
    **_SCOPE,
)
HOOKS = root.Registry(
    "hook",
    parent=root.HOOKS,
    locations=["mixplug.adapters.mm_resume", "mixplug.adapters.mm_selfsup_hooks"],
    **_SCOPE,
)
METRICS = root.Registry(
    "metric",
    parent=root.METRICS,
    locations=[
        "mixplug.adapters.mm_metrics",
        "mixplug.adapters.mm_knn",
        "mixplug.adapters.mm_reliability",
        "mixplug.adapters.mm_robust",
        "mixplug.adapters.mm_open_domain",
        "mixplug.adapters.mm_tracker",
    ],
    **_SCOPE,
)
OPTIM_WRAPPER_CONSTRUCTORS = root.Registry(
    "optimizer wrapper constructor",
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    locations=["mixplug.adapters.mm_vit"],
    **_SCOPE,
)
WEIGHT_INITIALIZERS = root.Registry(
    "weight initializer",
    parent=root.WEIGHT_INITIALIZERS,
    locations=["mixplug.adapters.mm_pretrained"],
    **_SCOPE,
)
# All of mixplug.mm, so that the Runner which is building such a model has its hook too.
MODELS = root.Registry("model", parent=root.MODELS, locations=["mixplug.mm"], **_SCOPE)
TRANSFORMS = root.Registry(
    "transform", parent=root.TRANSFORMS, locations=["mixplug.adapters.mm_clips"], **_SCOPE
)
