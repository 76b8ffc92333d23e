"""Registries of mmengine in the scope ``mixplug``: they hold what ``type='mixplug.X'`` names.

A class that is decorated by one of them, in a file of the package of its kind below
:mod:`mixplug.hosts.mm`, is found without being listed anywhere. So are classes of other packages
that the entry-point group ``mixplug.plugins`` names.

mmengine imports this file by itself and hides an ImportError in it. Therefore it imports mmengine
alone; the packages are imported at the first look-up, and a fault in them is raised.
"""

from __future__ import annotations

from importlib import import_module

from mmengine import registry as root

from mixplug import catalog
from mixplug.scanning import import_modules

PACKAGES = tuple(
    f"mixplug.hosts.mm.{name}" for name in ("datasets", "evaluation", "hooks", "models")
)


class Registry(root.Registry):
    """A registry that imports all modules of a package before it looks a name up.

    Args:
        name: what it holds, as mmengine's messages call it.
        parent: mmengine's own registry.
        location: package whose modules define its classes, or a module that imports them.
    """

    def __init__(self, name: str, parent: root.Registry, location: str) -> None:
        super().__init__(name, parent=parent, scope="mixplug", locations=[location])
        self.location = location
        self._complete = False

    def import_from_location(self) -> None:
        """Import what registers here: the location, and the plugins of other packages.

        Raises:
            ImportError: a file of the location is faulty. The message names it.
        """
        if self._complete:
            return
        if hasattr(import_module(self.location), "__path__"):
            import_modules(self.location)
        catalog.load()
        self._complete = True


def _registry(name: str, parent: root.Registry, package: str) -> Registry:
    return Registry(name, parent, f"mixplug.hosts.mm.{package}")


DATASETS = _registry("dataset", root.DATASETS, "datasets")
DATA_SAMPLERS = _registry("data sampler", root.DATA_SAMPLERS, "datasets")
TRANSFORMS = _registry("transform", root.TRANSFORMS, "datasets")
METRICS = _registry("metric", root.METRICS, "evaluation")
HOOKS = _registry("hook", root.HOOKS, "hooks")
OPTIM_WRAPPER_CONSTRUCTORS = _registry(
    "optimizer wrapper constructor", root.OPTIM_WRAPPER_CONSTRUCTORS, "models"
)
WEIGHT_INITIALIZERS = _registry("weight initializer", root.WEIGHT_INITIALIZERS, "models")
# mixplug.mm imports the models too, and prepares the Runner that is building one: it gets its hook.
MODELS = Registry("model", root.MODELS, "mixplug.mm")

REGISTRIES = (
    DATASETS,
    DATA_SAMPLERS,
    TRANSFORMS,
    METRICS,
    HOOKS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    WEIGHT_INITIALIZERS,
    MODELS,
)


def score_directions() -> tuple[list[str], list[str]]:
    """Beginnings of the names of scores that are better when higher, and when lower.

    The class of an evaluator declares them as ``higher_is_better`` and ``lower_is_better``::

        @METRICS.register_module()
        class BrierScore(BaseMetric):
            lower_is_better = ("brier",)
    """

    def all_of(attribute: str) -> list[str]:
        declared = [getattr(metric, attribute, ()) for metric in METRICS.module_dict.values()]
        return list(dict.fromkeys(name for names in declared for name in names))

    return all_of("higher_is_better"), all_of("lower_is_better")
