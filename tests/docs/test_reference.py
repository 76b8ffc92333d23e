"""The reference is made of the code: no name is left out, and docstrings keep their sense."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs" / "_ext"))

import command_reference  # noqa: E402
import docstrings  # noqa: E402
import functional_reference  # noqa: E402
import names_reference  # noqa: E402


def headings(text: str) -> list[str]:
    return re.findall(r"^(\S.*)\n[-=~]{3,}$", text, flags=re.M)


def test_every_name_has_its_keys_on_a_page() -> None:
    from mixplug.overview import everything

    pages = names_reference.pages()
    for one in everything():
        page = pages[one.kind.replace(" ", "_") + ".rst"]
        assert [h for h in headings(page) if h.split(" in ")[0] == one.name], one.name
        assert all(f"``{key.name}``" in page for key in one.keys), one.name


def test_every_function_is_on_the_page_of_functions() -> None:
    from mixplug import functional

    page = functional_reference.page()
    missing = [n for n in functional.__all__ if f"mixplug.functional.{n}\n" not in page + "\n"]
    assert not missing


def test_every_command_is_on_the_page_of_commands() -> None:
    import typer

    from mixplug.cli import app

    def walk(command, path):
        inner = getattr(command, "commands", {})
        yield " ".join(path), command
        for name in inner:
            yield from walk(inner[name], [*path, name])

    page = command_reference.page()
    for name, command in walk(typer.main.get_command(app), ["mixplug"]):
        assert name == "mixplug" or name in headings(page)
        options = [o for p in command.params for o in p.opts if o.startswith("-")]
        assert all(f"``{option}``" in page for option in options), name


def test_a_table_has_no_list_in_a_cell() -> None:
    """'18.' would be an item with the number 18."""
    lines = command_reference.table(("a", "b"), [("18.", "- of it")])
    assert lines[-3:-1] == [r"   * - \18.", r"     - \- of it"]


def test_formulas_and_signs_of_a_docstring() -> None:
    text = """\
Mix |x| of A* and B*.

    A* = x_ij * y      (1.2)

As in ``a * b``::

    code(*args)

Args:
    x: a *
    y_: b
"""
    lines = docstrings.prepared(text.splitlines())
    assert lines[0] == r"Mix \|x\| of A\* and B\*."
    assert lines[2:5] == [".. code-block:: text", "", "    A* = x_ij * y      (1.2)"]
    assert lines[6:9] == ["As in ``a * b``::", "", "    code(*args)"]
    assert lines[10:] == ["Args:", r"    x: a \*", r"    y\_: b"]


def test_equations_become_mathml_without_leftovers() -> None:
    pytest.importorskip("latex2mathml")  # of the group docs
    pytest.importorskip("sphinx")
    import mathml
    from docutils import nodes

    place = nodes.math()
    text = mathml.mathml(r"P^* = \arg\min_P \langle P, \mathbf{1} \rangle", "block", place)
    assert text.startswith("<math") and "\\" not in text
    assert "arg" in text and "\N{MATHEMATICAL BOLD DIGIT ONE}" in text


def test_pages_need_no_network() -> None:
    """No script, style or font of another server is named where the theme is set up."""
    for path in [ROOT / "docs/conf.py", *(ROOT / "docs/_static").iterdir()]:
        assert "http" not in path.read_text(), path
