"""Mixing methods and video pretraining for the training code that you already have.

mixplug adds methods to timm's train.py, to OpenMMLab configs (mmpretrain, mmdet, mmseg) and to your
own training loop, each by its name:

- mixers of features and embeddings: AlignMixup, MultiMix, Dense MultiMix, and input mixup, CutMix
  and manifold mixup beside them;
- metric losses: Metrix, which mixes examples within a loss, and the losses that it wraps;
- self-distillation of vision transformers: DoRA, which learns from one long video, and DINO;
- what it takes to evaluate them: retrieval scores, reliability cards, k-NN and linear probes,
  object discovery, tracking and video segmentation.

The methods come from a PhD thesis: Shashanka Venkataramanan, "Metric learning for instance and
category-level visual representation", Université de Rennes, 2024,
http://irisa.fr/en/node/1421 (announcement of the defense). Numbers of chapters, tables and
equations in this package refer to it, unless they name another work.

Start here:

- :func:`build` makes an object from its name, ``mixplug.build("AlignMixup", alpha=2)``; so does
  ``mixplug.alignmix(alpha=2)``.
- :func:`entries` is the table of all names; ``mixplug list`` prints it, with the names for
  OpenMMLab configs, and ``mixplug list NAME`` explains one.
- :func:`register` adds a class of your own.
- :func:`detach` takes a mixer off a trained model, before it is exported.
- Packages: ``mixers``, ``losses``, ``metrics``, ``models``, ``data``, ``video``, ``retrieval``,
  ``weights``, ``viz``, ``evaluation`` and ``functional``, the formulas as pure functions. They are
  imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mixplug import moved

if TYPE_CHECKING:
    from mixplug.catalog import build, entries, register
    from mixplug.hosts.detaching import detach
    from mixplug.layouts import Layout
    from mixplug.mixed import HullMixed, Mixed
    from mixplug.mixers.base import Mixer, Plan
    from mixplug.stages import Stages

__version__ = "0.2.0"

__all__ = [
    "HullMixed",
    "Layout",
    "Mixed",
    "Mixer",
    "Plan",
    "Stages",
    "build",
    "detach",
    "entries",
    "register",
    # packages and modules
    "blocks",
    "catalog",
    "criterion",
    "data",
    "evaluation",
    "from_config",
    "functional",
    "hosts",
    "layouts",
    "losses",
    "metrics",
    "mixed",
    "mixers",
    "models",
    "retrieval",
    "sampling",
    "stages",
    "video",
    "viz",
    "weights",
]

_HOMES = {
    "catalog": ("build", "entries", "register"),
    "hosts.detaching": ("detach",),
    "layouts": ("Layout",),
    "mixed": ("HullMixed", "Mixed"),
    "mixers": ("Mixer", "Plan"),
    "stages": ("Stages",),
}
_DEFINED_IN = {name: f"mixplug.{home}" for home, names in _HOMES.items() for name in names}
_NEED_OPENMMLAB = ("mm", "registry")  # not listed, so that nothing imports them by chance

moved.install()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, because torch takes seconds."""
    if name in _DEFINED_IN:
        value = getattr(import_module(_DEFINED_IN[name]), name)
        globals()[name] = value
        return value
    if name in __all__ or name in _NEED_OPENMMLAB:
        return import_module(f"mixplug.{name}")
    if name.startswith("_"):
        raise AttributeError(f"module 'mixplug' has no attribute {name!r}")
    from mixplug.catalog import find

    try:
        return find(name).target  # mixplug.alignmix
    except KeyError as error:
        raise AttributeError(
            f"module 'mixplug' has no attribute {name!r}. {error.args[0]}"
        ) from None


def __dir__() -> list[str]:
    """The public names, and the names and aliases of the catalog."""
    from mixplug.catalog import entries

    named = {name for entry in entries() for name in (entry.name, entry.alias)}
    dunders = {name for name in globals() if name.startswith("__")}
    return sorted({*dunders, *__all__, *named})
