"""mixplug in OpenMMLab: import this module, or name it in ``custom_imports``, once.

It registers mixplug's models, data sets and hooks in mmengine's root registries, so that a config
of any scope finds them without a prefix, and it makes the top-level key ``mixup`` of a config
work: :func:`enable` is the one place where mmengine is touched.
"""

from __future__ import annotations

import functools

from mmengine.runner import Runner

import mixplug.adapters.mm_backbones
import mixplug.adapters.mm_data  # noqa: F401  registers
from mixplug.adapters.mm_classifier import train_with
from mixplug.adapters.mm_resume import MixupHook
from mixplug.catalog import build
from mixplug.registry import DATASETS, HOOKS, MODELS


def enable() -> None:
    """Teach mmengine's Runner the key ``mixup``; calling it again changes nothing.

    A Runner whose config has the key

    - trains its model with that mixer: ``build_model`` attaches it, before the model is wrapped
      for distribution and before the optimizer is built;
    - has a MixupHook: ``register_hooks`` adds it.

    A Runner whose config lacks the key, or sets it to None, does what it always did.
    """
    if hasattr(Runner, "_mixplug"):
        return
    Runner._mixplug = True
    build_model, register_hooks = Runner.build_model, Runner.register_hooks

    @functools.wraps(build_model)
    def build_model_with_mixer(self, model):
        built = build_model(self, model)
        if self.cfg.get("mixup") is not None:
            train_with(built, build(self.cfg.mixup, kind="mixer"))
        return built

    @functools.wraps(register_hooks)
    def register_hooks_with_clock(self, *args, **kwargs):
        register_hooks(self, *args, **kwargs)
        if self.cfg.get("mixup") is not None:
            self.register_hook(MixupHook())

    Runner.build_model = build_model_with_mixer
    Runner.register_hooks = register_hooks_with_clock


def register_everywhere() -> None:
    """Enter what mixplug's registries hold in mmengine's root, for configs without the prefix."""
    for child in (DATASETS, HOOKS, MODELS):
        for name, target in child.module_dict.items():
            if name not in child.parent.module_dict:
                child.parent.register_module(name=name, module=target)


register_everywhere()
enable()
