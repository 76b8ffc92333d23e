"""The key ``mixup`` in mmengine configs that do not import mixplug.

mmengine reads ``custom_imports`` in configs of its old style only. In pure Python configs, and in
configs that are dictionaries, it ignores the line, and a run would train without the mixer.
Therefore PyTorch (2.5 and later) calls :func:`watch` by the entry-point group ``torch.backends``.
It imports nothing. It waits for mmengine's runners, which import :mod:`mixplug.mm` if their config
has the key.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Module of a runner to its class, and the method that is called first and needs the mixer.
_RUNNERS = {
    "mmengine.runner.runner": ("Runner", "build_model"),
    "mmengine.runner._flexible_runner": ("FlexibleRunner", "train"),
}
_DONE = "_prepared_by_mixplug"


def watch() -> None:
    """Prepare mmengine's runners when they are imported; calling it again changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    _prepare_loaded()


def _prepare_loaded() -> None:
    """Prepare the runners whose modules are loaded.

    Where mmengine is imported before PyTorch, it imports PyTorch while it loads the first of them.
    So this is done once more after the second.
    """
    for module, (name, method) in _RUNNERS.items():
        runner = getattr(sys.modules.get(module), name, None)
        if hasattr(runner, method) and not hasattr(getattr(runner, method), _DONE):
            _prepare(runner, method)


def needs_mixplug(config: Mapping[str, Any]) -> bool:
    """Whether a config has the key ``mixup`` and means a mixer of this package by it.

    It does if it names mixplug in ``custom_imports``, or if the key names something that is in the
    catalog. Other projects may have a variable of this name in their configs.
    """
    spec = config.get("mixup")
    if spec is None or "mixplug.mm" in sys.modules:
        return False
    if "mixplug" in str((config.get("custom_imports") or {}).get("imports", "")):
        return True
    specs = spec if isinstance(spec, (list, tuple)) else [spec]
    types = [each.get("type") if isinstance(each, Mapping) else each for each in specs]
    if any(map(_is_ours, types)):
        return True
    warnings.warn(
        f"The config has a key mixup, but mixplug has no mixer {types}, so mixplug leaves it "
        f"alone. If it is a mixer of your own, import mixplug.mm before the Runner is built.",
        stacklevel=3,
    )
    return False


def _is_ours(target: object) -> bool:
    from mixplug.catalog import entries

    if not isinstance(target, str):
        return any(target is e.target for e in entries()) or "mixplug" in str(
            [base.__module__ for base in getattr(target, "__mro__", ())]
        )
    names = {name for e in entries() for name in (e.name, e.alias)}
    return target in names or target.startswith("mixplug.")


def _prepare(runner: Any, method: str) -> None:
    """Make a runner import mixplug.mm before its method, which that module may replace."""
    plain = getattr(runner, method)

    @functools.wraps(plain)
    def prepared(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not needs_mixplug(self.cfg):
            return plain(self, *args, **kwargs)
        from mixplug import mm  # noqa: F401  teaches the runners the key

        return getattr(runner, method)(self, *args, **kwargs)

    setattr(prepared, _DONE, True)
    setattr(runner, method, prepared)


class _Finder(MetaPathFinder):
    """Finds the modules of the runners as Python would, and prepares them when they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _RUNNERS:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find and finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader = _Prepared(spec.loader)
                return spec
        return None


class _Prepared(Loader):
    """Loads a module with its own loader, and then prepares its class."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        _prepare_loaded()
