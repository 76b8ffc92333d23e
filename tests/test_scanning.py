"""Packages whose modules are found, and names that are imported when first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixplug.scanning import import_modules

MODULE = """
from collections import OrderedDict

class {name}: ...
class _Private: ...
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that exports the classes of its modules a and b lazily."""
    folder = tmp_path / "scanned_rooms"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from mixplug.scanning import lazy_package\n__getattr__, __dir__ = lazy_package(__name__)\n"
    )
    for name in ("a", "b"):
        (folder / f"{name}.py").write_text(MODULE.format(name=name.upper()))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "scanned_rooms"]:
        del sys.modules[name]


def test_all_modules_are_imported_in_order(package: Path) -> None:
    assert [m.__name__ for m in import_modules("scanned_rooms")] == [
        "scanned_rooms.a", "scanned_rooms.b",
    ]  # fmt: skip


def test_a_faulty_module_is_named_with_its_cause(package: Path) -> None:
    (package / "c.py").write_text("import missing_thing\n")
    message = (
        r"scanned_rooms\.c cannot be imported, so nothing of scanned_rooms can be used\. "
        r"ModuleNotFoundError: No module named 'missing_thing'"
    )
    with pytest.raises(ImportError, match=message) as caught:
        import_modules("scanned_rooms")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_public_classes_are_names_of_the_package(package: Path) -> None:
    rooms = importlib.import_module("scanned_rooms")
    assert "scanned_rooms.a" not in sys.modules
    assert rooms.__all__ == dir(rooms) == ["A", "B"]
    assert rooms.A.__module__ == "scanned_rooms.a"
    for name in ("OrderedDict", "_Private", "C", "__wrapped__"):
        assert not hasattr(rooms, name)


def test_a_module_is_found_without_importing_the_others(package: Path) -> None:
    (package / "c.py").write_text("1 / 0\n")
    rooms = importlib.import_module("scanned_rooms")
    assert rooms.a.A.__name__ == "A"
    assert "scanned_rooms.b" not in sys.modules


def test_star_import_gives_what_the_package_exports(package: Path) -> None:
    names: dict[str, object] = {}
    exec("from scanned_rooms import *", names)
    assert {"A", "B"} <= names.keys()


def test_named_exports_are_imported_when_first_used(package: Path) -> None:
    (package / "__init__.py").write_text(
        "from mixplug.scanning import lazy_names\n"
        "_HOMES = {'B': 'b'}\n__all__ = [*_HOMES]\n"
        "__getattr__, __dir__ = lazy_names(__name__, _HOMES)\n"
    )
    rooms = importlib.import_module("scanned_rooms")
    assert dir(rooms) == ["B"] and "scanned_rooms.b" not in sys.modules
    assert rooms.B.__name__ == "B" and "scanned_rooms.a" not in sys.modules
    assert not hasattr(rooms, "A")
