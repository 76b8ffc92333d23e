"""Child registries of mmengine, in the scope ``mixplug``.

mmengine imports this file by itself for any ``type='mixplug.X'``, and hides an ImportError of it.
"""

from __future__ import annotations

from mmengine import registry as root

_SCOPE = {"scope": "mixplug"}

DATA_SAMPLERS = root.Registry(
    "data sampler",
    parent=root.DATA_SAMPLERS,
    locations=["mixplug.hosts.mm.datasets.samplers", "mixplug.hosts.mm.datasets.clips"],
    **_SCOPE,
)
DATASETS = root.Registry(
    "dataset",
    parent=root.DATASETS,
    locations=[
        "mixplug.hosts.mm.datasets.retrieval",
        "mixplug.hosts.mm.datasets.cub",
        "mixplug.hosts.mm.datasets.image_folders",
        "mixplug.hosts.mm.datasets.outside",
        "mixplug.hosts.mm.datasets.office_home",
        "mixplug.hosts.mm.datasets.clips",
        "mixplug.hosts.mm.datasets.tracking",
    ],
    **_SCOPE,
)
HOOKS = root.Registry(
    "hook",
    parent=root.HOOKS,
    locations=["mixplug.hosts.mm.hooks.mixup", "mixplug.hosts.mm.hooks.self_distillation"],
    **_SCOPE,
)
METRICS = root.Registry(
    "metric",
    parent=root.METRICS,
    locations=[
        "mixplug.hosts.mm.evaluation.retrieval",
        "mixplug.hosts.mm.evaluation.knn",
        "mixplug.hosts.mm.evaluation.reliability",
        "mixplug.hosts.mm.evaluation.robustness",
        "mixplug.hosts.mm.evaluation.open_set",
        "mixplug.hosts.mm.evaluation.got10k",
    ],
    **_SCOPE,
)
OPTIM_WRAPPER_CONSTRUCTORS = root.Registry(
    "optimizer wrapper constructor",
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    locations=["mixplug.hosts.mm.models.vit"],
    **_SCOPE,
)
WEIGHT_INITIALIZERS = root.Registry(
    "weight initializer",
    parent=root.WEIGHT_INITIALIZERS,
    locations=["mixplug.hosts.mm.models.pretrained"],
    **_SCOPE,
)
# All of mixplug.mm, so that the Runner which is building such a model has its hook too.
MODELS = root.Registry("model", parent=root.MODELS, locations=["mixplug.mm"], **_SCOPE)
TRANSFORMS = root.Registry(
    "transform", parent=root.TRANSFORMS, locations=["mixplug.hosts.mm.datasets.clips"], **_SCOPE
)
