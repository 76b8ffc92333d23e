"""Optional dependencies: import them, or say which command installs them."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType


def checkout() -> Path | None:
    """The root of the repository that mixplug runs from, None if it was installed from a wheel.

    It is recognized by the pyproject.toml beside the package, which no wheel has. An editable
    install is a checkout too.
    """
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if project.is_file() and 'name = "mixplug"' in project.read_text(encoding="utf-8"):
        return project.parent
    return None


def install_line(extra: str) -> str:
    """The command that installs an extra: by uv in a checkout, by pip if mixplug was installed."""
    if checkout():
        return f"uv sync --inexact --extra {extra}"
    return f"pip install 'mixplug[{extra}]'"


def version_of(distribution: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def optional(module: str, extra: str, why: str) -> ModuleType:
    """Import an optional dependency, or say which line installs it.

    Args:
        module: dotted name.
        extra: of mixplug, that brings it.
        why: what needs it, the subject of the message.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # it is installed, but lacks a part of its own
        raise ImportError(
            f"{why} needs {module.partition('.')[0]}, which is not installed. "
            f"Install it with: {install_line(extra)}"
        ) from error
