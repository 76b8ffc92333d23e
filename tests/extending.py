"""The method of docs/extend/self_distillation.md, taken from the page that shows it."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mixplug import catalog

PAGE = Path(__file__).parents[1] / "docs" / "extend" / "self_distillation.md"


def blocks() -> list[str]:
    """The Python blocks of the page: the method, a loop, and a config."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@contextmanager
def ibot(folder: Path) -> Iterator[type]:
    """The class IBOT of a module ``ibot``; afterwards neither is known."""
    (folder / "ibot.py").write_text(blocks()[0])
    catalog.entries()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(catalog, "_table", dict(catalog._table))
        try:
            yield importlib.import_module("ibot").IBOT
        finally:
            sys.modules.pop("ibot", None)
            registry = sys.modules.get("mixplug.registry")
            for one in (registry.MODELS, registry.MODELS.parent) if registry else ():
                one.module_dict.pop("IBOT", None)
