"""mixplug in OpenMMLab: import this module, or name it in ``custom_imports``, once.

It registers mixplug's models, data sets, samplers, transforms, evaluators and hooks in mmengine's
root registries, so that a config of any scope finds them without a prefix, and it makes the
top-level key ``mixup`` of a config work: :func:`enable` is the one place where mmengine is touched.
A config whose model is one of mixplug's own, ``model=dict(type='mixplug.MetricLearner', ...)``,
need not name this module.
"""

from __future__ import annotations

import functools

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmengine.utils import is_installed

import mixplug.hosts.mm.datasets.clips
import mixplug.hosts.mm.datasets.cub
import mixplug.hosts.mm.datasets.image_folders
import mixplug.hosts.mm.datasets.office_home
import mixplug.hosts.mm.datasets.outside
import mixplug.hosts.mm.datasets.retrieval
import mixplug.hosts.mm.datasets.samplers
import mixplug.hosts.mm.datasets.tracking
import mixplug.hosts.mm.evaluation.got10k
import mixplug.hosts.mm.evaluation.knn
import mixplug.hosts.mm.evaluation.open_set
import mixplug.hosts.mm.models.backbones
import mixplug.hosts.mm.models.class_tokens
import mixplug.hosts.mm.models.frozen_tracker
import mixplug.hosts.mm.models.metric_learner
import mixplug.hosts.mm.models.pretrained
import mixplug.hosts.mm.models.self_distillation
import mixplug.hosts.mm.models.views_preprocessor
import mixplug.hosts.mm.models.vit  # noqa: F401  registers
from mixplug.hosts.mm.evaluation import reliability as mm_reliability
from mixplug.hosts.mm.evaluation import retrieval as mm_metrics
from mixplug.hosts.mm.evaluation import robustness as mm_robust
from mixplug.hosts.mm.hooks.mixup import MixupHook, unwrapped
from mixplug.hosts.mm.mixing.key import train_with
from mixplug.mixers.building import build_mixer
from mixplug.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS

# Precisions and mAP are known to mmengine.
_GREATER = ("recall@", "nmi", "knn@", *mm_reliability.HIGHER_IS_BETTER)
_LESS = tuple(
    name for host in (mm_metrics, mm_reliability, mm_robust) for name in host.LOWER_IS_BETTER
)


def enable() -> None:
    """Teach mmengine's Runner the key ``mixup``; calling it again changes nothing.

    A Runner whose config has the key

    - trains its model with that mixer: ``build_model`` attaches it, before the model is wrapped
      for distribution and before the optimizer is built;
    - has a MixupHook: ``register_hooks`` adds it, as it does for a model that brings a clock of
      its own (MetricLearner, DoRA), and for a model that brings hooks, these.

    Any other Runner does what it always did. Evaluators that look into the model, such as those of
    calibration and robustness, are told which it is. ``save_best='auto'`` learns which of our
    scores are better when they are greater, and bases ``mmseg::`` are found where mmseg is the
    fork, whose package has another name than mmengine looks for.
    """
    if hasattr(Runner, "_mixplug"):
        return
    Runner._mixplug = True
    build_model, register_hooks = Runner.build_model, Runner.register_hooks
    build_evaluator = Runner.build_evaluator

    @functools.wraps(build_model)
    def build_model_with_mixer(self, model):
        built = build_model(self, model)
        if self.cfg.get("mixup") is not None:
            train_with(built, build_mixer(self.cfg.mixup))
        return built

    @functools.wraps(register_hooks)
    def register_hooks_with_clock(self, *args, **kwargs):
        register_hooks(self, *args, **kwargs)
        model = unwrapped(self.model)
        for hook in getattr(model, "own_hooks", ()):
            self.register_hook(hook)
        if hasattr(model, "clock"):
            self.register_hook(MixupHook())
        elif self.cfg.get("mixup") is not None:
            raise ValueError(
                "The mixup key was not seen when the model was built: mixplug.mm was imported too "
                "late. Add custom_imports = dict(imports=['mixplug.mm']) to the config."
            )

    @functools.wraps(build_evaluator)
    def build_evaluator_with_runner(self, evaluator):
        built = build_evaluator(self, evaluator)
        for metric in getattr(built, "metrics", ()):
            if hasattr(metric, "attach"):
                metric.attach(self)
        return built

    Runner.build_model = build_model_with_mixer
    Runner.build_evaluator = build_evaluator_with_runner
    Runner.register_hooks = register_hooks_with_clock
    if not is_installed("mmsegmentation"):
        MODULE2PACKAGE["mmseg"] = "mmseg"
    CheckpointHook._default_greater_keys = [*CheckpointHook._default_greater_keys, *_GREATER]
    CheckpointHook._default_less_keys = [*CheckpointHook._default_less_keys, *_LESS]


def register_everywhere() -> None:
    """Enter what mixplug's registries hold in mmengine's root, for configs without the prefix."""
    for child in (DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS):
        for name, target in child.module_dict.items():
            if name not in child.parent.module_dict:
                child.parent.register_module(name=name, module=target)


register_everywhere()
enable()
