"""Old names of keys and functions, accepted for one release with a DeprecationWarning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


def renamed_keys(**new_names: str) -> Callable[[T], T]:
    """Let a class or function take keyword arguments by their old names as well.

    ::

        @renamed_keys(centre_decay="center_decay")
        def update(center_decay: float) -> None: ...

    Args:
        **new_names: old name to new name.
    """

    def decorate(target: T) -> T:
        if not isinstance(target, type):
            return _taking(target, target.__qualname__, new_names)
        plain = target.__init__  # type: ignore[misc]
        target.__init__ = _taking(plain, target.__name__, new_names)  # type: ignore[misc]
        names = {**getattr(target, "renamed_keys", {}), **new_names}
        target.renamed_keys = names  # type: ignore[attr-defined]
        return target

    return decorate


def current_keys(target: object, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with old names replaced, for a ``target`` that :func:`renamed_keys` decorates."""
    return _current(getattr(target, "__name__", ""), getattr(target, "renamed_keys", {}), arguments)


def renamed_names(module: str, new_names: Mapping[str, Any]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that gives renamed objects under their old names.

    Args:
        module: its ``__name__``.
        new_names: old name to the object that it means now.
    """

    def get(name: str) -> Any:
        if name not in new_names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found = new_names[name]
        warn(f"{module}.{name}", f"{found.__module__}.{found.__qualname__}")
        return found

    return get


def warn(old: str, new: str) -> None:
    """Say that a name is an old one."""
    warnings.warn(
        f"{old} is now {new}. The old name works until mixplug 0.3.",
        DeprecationWarning,
        stacklevel=4,
    )


def _taking(function: T, owner: str, new_names: Mapping[str, str]) -> T:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **_current(owner, new_names, kwargs))

    return call  # type: ignore[return-value]


def _current(
    owner: str, new_names: Mapping[str, str], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in arguments.items():
        new = new_names.get(key, key)
        if new in found or (new != key and new in arguments):
            raise ValueError(f"{owner} got {key!r} and {new!r}, which are the same key.")
        if new != key:
            warn(f"The key {key!r} of {owner}", repr(new))
        found[new] = value
    return found
