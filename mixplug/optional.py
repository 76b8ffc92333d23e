"""The one way to import what is optional."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType


def install_line(extra: str) -> str:
    """The command that installs an extra, in a clone of mixplug."""
    return f"uv sync --inexact --extra {extra}"


def version_of(distribution: str) -> str | None:
    """The version of a distribution, None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def optional(module: str, extra: str, why: str) -> ModuleType:
    """Import an optional dependency, or say which line installs it.

    Args:
        module: dotted name.
        extra: of mixplug, that brings it.
        why: what it is wanted for.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # it is there, but lacks a part of its own
        raise ImportError(
            f"{why} needs {module.partition('.')[0]}, which is not installed. "
            f"Install it with: {install_line(extra)}"
        ) from error
