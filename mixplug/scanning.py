"""Find what a package offers without a list: import its modules, and collect what they define."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any


def import_modules(package: str) -> list[ModuleType]:
    """Import every module of a package, in the order of their names.

    Args:
        package: dotted name. Folders that were added to its ``__path__`` are searched too.

    Raises:
        ImportError: a module cannot be imported. The message names the file and the cause, because
            one faulty file makes every name of its package unavailable.
    """
    found = import_module(package).__path__
    return [_imported(module.name) for module in pkgutil.iter_modules(found, f"{package}.")]


def _imported(module: str) -> ModuleType:
    try:
        return import_module(module)
    except Exception as error:
        raise ImportError(
            f"{module} cannot be imported, so nothing of {module.rpartition('.')[0]} can be used. "
            f"{type(error).__name__}: {error}",
            name=module,
        ) from error


def lazy_package(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that exports the public classes of its modules.

    ::

        __getattr__, __dir__ = lazy_package(__name__)

    The modules are imported when a name is first used, all of them. It is for packages whose
    modules need a host, which takes seconds to import.
    """

    def names() -> list[str]:
        return sorted(name for module in import_modules(package) for name, _ in _classes(module))

    def get(name: str) -> Any:
        if name == "__all__":
            return names()
        if not name.startswith("_"):
            if any(module.name == name for module in pkgutil.iter_modules(_path(package))):
                return _imported(f"{package}.{name}")
            for module in import_modules(package):
                for found, value in _classes(module):
                    if found == name:
                        return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, names


def _path(package: str) -> Any:
    return import_module(package).__path__


def _classes(module: ModuleType) -> Iterator[tuple[str, type]]:
    """The public classes that are defined in a module itself."""
    for name, value in inspect.getmembers(module, inspect.isclass):
        if value.__module__ == module.__name__ and not name.startswith("_"):
            yield name, value


def lazy_names(
    package: str, homes: dict[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names are imported when first used.

    ::

        _HOMES = {"timm_stages": "stages", "bind": "task"}
        __all__ = [*_HOMES]
        __getattr__, __dir__ = lazy_names(__name__, _HOMES)

    Args:
        package: its ``__name__``.
        homes: public name to the module below the package that defines it.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(_imported(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(homes)
