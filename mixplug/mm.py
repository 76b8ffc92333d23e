"""mixplug in OpenMMLab: import this module, or name it in ``custom_imports``, once.

It registers mixplug's models, data sets, samplers, transforms, evaluators and hooks in mmengine's
root registries, so that a config of any scope finds them without a prefix. It also makes the
top-level key ``mixup`` of a config work: :func:`enable` is the one place where mmengine is patched.
A config whose model is one of mixplug's own, ``model=dict(type='mixplug.MetricLearner', ...)``,
does not need to name this module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import FlexibleRunner, Runner
from mmengine.utils import is_installed

from mixplug import catalog
from mixplug.hosts.mm.hooks.mixup import MixupHook, unwrapped
from mixplug.hosts.mm.mixing.key import train_with
from mixplug.mixers.building import build_mixer
from mixplug.registry import (  # noqa: F401  the registries can be imported from here as well
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    PACKAGES,
    REGISTRIES,
    TRANSFORMS,
    score_directions,
)
from mixplug.scanning import import_modules


def enable() -> None:
    """Teach mmengine's Runner the key ``mixup``; calling it again changes nothing.

    A Runner whose config has the key

    - trains its model with that mixer: ``build_model`` attaches it, before the model is wrapped
      for distribution and before the optimizer is built;
    - has a MixupHook: ``register_hooks`` adds it. It is also added for a model that has a ``clock``
      (MetricLearner, DoRA), and so are the hooks that a model names as its ``own_hooks``.

    Any other Runner behaves as before, and a FlexibleRunner refuses the key. Evaluators that look
    into the model, such as those of calibration and robustness, get the model. ``save_best='auto'``
    learns from the classes of our evaluators which scores are better when they are higher. Bases
    ``mmseg::`` are found where mmseg is the fork, whose distribution has another name than mmengine
    looks for.
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
        learn_score_directions()  # also of evaluators that were registered after this module
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
    FlexibleRunner.train = _train_without_key(FlexibleRunner.train)
    Runner.build_evaluator = build_evaluator_with_runner
    Runner.register_hooks = register_hooks_with_clock
    if not is_installed("mmsegmentation"):
        MODULE2PACKAGE["mmseg"] = "mmseg"


def _train_without_key(train: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(train)
    def refuse_or_train(self: FlexibleRunner) -> Any:
        if self.cfg.get("mixup") is not None:
            raise ValueError(
                "The mixup key does not work in mmengine's FlexibleRunner, which builds its model "
                "in a strategy. Remove runner_type='FlexibleRunner' or the key."
            )
        return train(self)

    return refuse_or_train


def learn_score_directions() -> None:
    """Register with mmengine's hooks which of our scores are better when higher, and when lower."""
    higher, lower = score_directions()
    for hook in (CheckpointHook, EarlyStoppingHook):
        hook._default_greater_keys = list(dict.fromkeys([*hook._default_greater_keys, *higher]))
        hook._default_less_keys = list(dict.fromkeys([*hook._default_less_keys, *lower]))


def register_everywhere() -> None:
    """Enter what mixplug's registries hold in mmengine's root, for configs without the prefix."""
    for child in REGISTRIES:
        for name, target in child.module_dict.items():
            if name not in child.parent.module_dict:
                child.parent.register_module(name=name, module=target)


for _package in PACKAGES:
    import_modules(_package)
catalog.load()  # plugins of other packages may register here as well
register_everywhere()
learn_score_directions()
enable()
