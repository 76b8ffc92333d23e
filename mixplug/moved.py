"""Old paths of modules, importable for one release with a DeprecationWarning.

Checkpoints, pickles and configs may name a module by the path that it had in mixplug 0.1, such as
``mixplug.adapters.retype``. :func:`install` makes Python look such a path up in the table below.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mixplug.renamed import old_name

_VIT = "encoder_base encoder recompute class_tokens pyramid side_by_side timm_vit windows"
_ROOMS = {  # of mixplug.models
    "heads": "autoencoder decoder embedding",
    "self_distillation": "average dino_head distillation dora schedules tracker views",
    "small": "preact preact_resnet timm_entrypoints vgg_gap wide_resnet",
    "tracking": "box_decoder frozen_tracker",
    "vit": _VIT,
}
_FROZEN = "davis discovery knn label_propagation linear"

# Old path to the new ones, without the leading "mixplug.". A module that was split has several.
NEW_PATHS: dict[str, tuple[str, ...]] = {
    "adapters": (),
    "adapters.clock": ("hosts.clock",),
    "adapters.mm_backbones": ("hosts.mm.models.backbones",),
    "adapters.mm_card": ("from_config.card",),
    "adapters.mm_class_tokens": ("hosts.mm.models.class_tokens",),
    "adapters.mm_classifier": ("hosts.mm.mixing.classifier",),
    "adapters.mm_clips": ("hosts.mm.datasets.clips", "hosts.mm.models.views_preprocessor"),
    "adapters.mm_criterion": ("hosts.mm.mixing.criterion",),
    "adapters.mm_cub": ("hosts.mm.datasets.cub",),
    "adapters.mm_data": ("hosts.mm.datasets.retrieval",),
    "adapters.mm_decoder": ("from_config.decoder",),
    "adapters.mm_detector": ("hosts.mm.mixing.detector",),
    "adapters.mm_embed": ("from_config.embeddings", "from_config.config"),
    "adapters.mm_embedding_metric": ("hosts.mm.evaluation.embeddings",),
    "adapters.mm_heat_maps": ("from_config.heat_maps",),
    "adapters.mm_image_folders": ("hosts.mm.datasets.image_folders",),
    "adapters.mm_knn": ("hosts.mm.evaluation.knn",),
    "adapters.mm_metric": ("hosts.mm.models.metric_learner",),
    "adapters.mm_metrics": ("hosts.mm.evaluation.retrieval",),
    "adapters.mm_mixup": ("hosts.mm.mixing.key",),
    "adapters.mm_open_domain": ("hosts.mm.evaluation.open_set", "hosts.mm.datasets.office_home"),
    "adapters.mm_outside": ("hosts.mm.datasets.outside",),
    "adapters.mm_pretrained": ("hosts.mm.models.pretrained",),
    "adapters.mm_reliability": ("hosts.mm.evaluation.reliability",),
    "adapters.mm_resume": ("hosts.mm.hooks.mixup",),
    "adapters.mm_robust": ("hosts.mm.evaluation.robustness",),
    "adapters.mm_samplers": ("hosts.mm.datasets.samplers",),
    "adapters.mm_segmentor": ("hosts.mm.mixing.segmentor",),
    "adapters.mm_selfsup": ("hosts.mm.models.self_distillation",),
    "adapters.mm_selfsup_hooks": ("hosts.mm.hooks.self_distillation",),
    "adapters.mm_tracker": (
        "hosts.mm.models.frozen_tracker",
        "hosts.mm.datasets.tracking",
        "hosts.mm.evaluation.got10k",
    ),
    "adapters.mm_vgg_gap": ("hosts.mm.models.backbones",),
    "adapters.mm_vit": ("hosts.mm.models.vit",),
    "adapters.mm_watch": ("hosts.mm.evaluation.watch",),
    "adapters.mm_weights": ("from_config.config",),
    "adapters.mm_wsol": ("from_config.wsol",),
    "adapters.ranks": ("distributed",),
    "adapters.retype": ("hosts.retype",),
    "adapters.timm": ("hosts.timm.task", "hosts.timm.stages"),
    "adapters.timm_card": ("hosts.timm.card",),
    "data.unlabelled": ("data.unlabeled",),
    "functional.knn": ("functional.neighbors",),
    "functional.nearest": ("functional.exact_search",),
    "losses.recompute": ("losses.closed_form",),
    "models.timm_names": ("weights.timm_names",),
    "viz.alignment_from_config": ("from_config.alignment",),
    "viz.from_config": ("from_config.figures",),
    "weights.words": ("names",),
    **{f"evaluation.{name}": (f"evaluation.frozen.{name}",) for name in _FROZEN.split()},
    **{
        f"models.{name}": (f"models.{room}.{name}",)
        for room, names in _ROOMS.items()
        for name in names.split()
    },
    "models.distillation": (
        "models.self_distillation.distillation",
        "models.self_distillation.dino",
        "models.self_distillation.views",
    ),
}


class _KeepsItsNames(ModuleType):
    """A package of which an old path has the name of a public function."""

    def __setattr__(self, name: str, value: object) -> None:
        """Do not let the import of ``functional.nearest`` replace the function of that name."""
        hides = isinstance(value, ModuleType) and f"{self.__name__}.{name}" == value.__name__
        if not (hides and name in getattr(self, "__all__", ())):
            super().__setattr__(name, value)


class _Finder(MetaPathFinder, Loader):
    """Finds the old paths, after Python's own finders have found nothing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != "mixplug" or old not in NEW_PATHS:
            return None
        return ModuleSpec(fullname, self, is_package=not NEW_PATHS[old])

    def exec_module(self, module: ModuleType) -> None:
        new = [f"mixplug.{path}" for path in NEW_PATHS[module.__name__.partition(".")[2]]]
        found = [import_module(path) for path in new]
        package, _, last = module.__name__.rpartition(".")
        if last in getattr(sys.modules[package], "__all__", ()):
            sys.modules[package].__class__ = _KeepsItsNames

        def get(name: str) -> Any:
            for part in found:
                if hasattr(part, name):
                    return getattr(part, name)
            return old_name(module.__name__, name)

        module.__getattr__ = get  # type: ignore[method-assign]
        warnings.warn(
            f"{module.__name__} has moved to {' and '.join(new) or 'mixplug.hosts'}. The old path "
            f"works until mixplug 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )


def install() -> None:
    """Let Python import the old paths; calling it again changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
