"""Bridges for renamed keys and functions: old names work with a DeprecationWarning until 0.3."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


def renamed_keys(**new_names: str) -> Callable[[T], T]:
    """Decorate a class or function so that it also accepts keyword arguments by their old names.

    ::

        @renamed_keys(centre_decay="center_decay")
        def update(center_decay: float) -> None: ...

    The decorated class or function raises ValueError for both names of the same argument.

    Args:
        **new_names: new name of each old name.
    """

    def decorate(target: T) -> T:
        if not isinstance(target, type):
            return _accept_old_names(target, target.__qualname__, new_names)
        plain = target.__init__  # type: ignore[misc]
        init = _accept_old_names(plain, target.__name__, new_names)
        target.__init__ = init  # type: ignore[misc]
        names = {**getattr(target, "renamed_keys", {}), **new_names}
        target.renamed_keys = names  # type: ignore[attr-defined]
        return target

    return decorate


def current_keys(target: object, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a class that :func:`renamed_keys` decorates, with old names replaced.

    Raises:
        ValueError: both names of the same argument.
    """
    return _current(getattr(target, "__name__", ""), getattr(target, "renamed_keys", {}), arguments)


def renamed_names(module: str, new_names: Mapping[str, Any]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module, which returns renamed objects for their old names.

    Args:
        module: ``__name__`` of the module.
        new_names: renamed object of each old name.
    """

    def get(name: str) -> Any:
        if name not in new_names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        target = new_names[name]
        warn(f"{module}.{name}", f"{target.__module__}.{target.__qualname__}")
        return target

    return get


def warn(old: str, new: str) -> None:
    """Warn that a name is deprecated."""
    warnings.warn(
        f"{old} is now {new}. The old name works until mixplug 0.3.",
        DeprecationWarning,
        stacklevel=4,
    )


def _accept_old_names(function: T, owner: str, new_names: Mapping[str, str]) -> T:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **_current(owner, new_names, kwargs))

    return call  # type: ignore[return-value]


def _current(
    owner: str, new_names: Mapping[str, str], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    current: dict[str, Any] = {}
    for key, value in arguments.items():
        new = new_names.get(key, key)
        if new in current or (new != key and new in arguments):
            raise ValueError(f"{owner} got both {key!r} and {new!r}, two names of the same key.")
        if new != key:
            warn(f"The key {key!r} of {owner}", repr(new))
        current[new] = value
    return current
