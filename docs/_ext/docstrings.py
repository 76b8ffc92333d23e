"""Docstrings as reStructuredText: indented formulas, and signs that it would take for markup."""

from __future__ import annotations

import importlib
import re

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Note|Example|Examples):$")
_CODE = re.compile(r"(``.+?``|:[\w:]+:`[^`]+`|`[^`]+`_?|\[\d+\])")


def prepared(lines: list[str]) -> list[str]:
    """Lines whose indented paragraphs are literal blocks, and whose stars and bars are text."""
    out: list[str] = []
    last, section, literal = "", False, False
    for i, line in enumerate(lines):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if text and not indent:
            section, literal = bool(_SECTION.match(text)), False
        blank_before = i == 0 or not lines[i - 1].strip()
        if text and indent and not section and blank_before and not literal:
            if not last.endswith("::") and not last.lstrip().startswith((".. ", "- ")):
                out += [".. code-block:: text", ""]
            literal = not last.lstrip().startswith("- ")
        if literal or text.startswith(".. "):
            out.append(line)
            literal = True
        else:
            out.append(escaped(line))
        last = line if text else last
    return out


def escaped(line: str) -> str:
    """A line whose stars, bars and final underscores are only themselves."""
    parts = _CODE.split(line)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(?<![\\*])\*(?!\*)|\|", lambda m: "\\" + m[0], parts[i])
        parts[i] = re.sub(r"(\w)_(?=\W|$)", r"\1\\_", parts[i])
    return "".join(parts)


def _process(app, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = prepared(lines)


def _without_page(app, env, node, content):
    """Text for a reference to what exists and has no page of its own; else Sphinx warns."""
    if node.get("refdomain") != "py" or not node.get("reftarget", "").startswith("mixplug."):
        return None
    module, rest = node["reftarget"], []
    while module:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    try:
        for name in rest:
            found = getattr(found, name)
    except AttributeError:
        return None
    return content


def setup(app) -> dict[str, bool]:
    """Prepare docstrings before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("missing-reference", _without_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
