"""A page of :mod:`mixplug.functional`: its public functions, by the file that defines them."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from command_reference import title, write
from docstrings import escaped


def page() -> str:
    """The page, as reStructuredText."""
    package = importlib.import_module("mixplug.functional")
    homes: dict[str, list[str]] = {}
    for name in package.__all__:
        homes.setdefault(getattr(package, name).__module__, []).append(name)
    lines = [*title("mixplug.functional", "="), escaped(inspect.getdoc(package) or ""), ""]
    for home in sorted(homes):
        about = inspect.getdoc(importlib.import_module(home)) or home
        lines += title(escaped(about.splitlines()[0].rstrip(".")), "-")
        for name in homes[home]:
            kind = "class" if inspect.isclass(getattr(package, name)) else "function"
            lines += [f".. auto{kind}:: mixplug.functional.{name}", ""]
    return "\n".join(lines)


def _build(app) -> None:
    write(Path(app.srcdir) / "reference" / "functional.rst", page())


def setup(app) -> dict[str, bool]:
    """Write the page before Sphinx looks for pages."""
    app.connect("builder-inited", _build)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
