"""Read Google-style docstrings: the summary, the description, and the meaning of every key."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_HEADING = re.compile(r"^([A-Z][a-z]+):$")
_ITEM = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:\s+(.*)$")
_SOURCE = re.compile(r"\((?:thesis,? )?((?:Tables? |Figures? |eq\. |§)?\d+\.\d[\w., -]*)\)")
_ROLE = re.compile(r":(?:py:)?[a-z]+:`~?([^`]+)`")


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring.

    Attributes:
        summary: its first paragraph in one line, without marks of references such as ``[0]``.
        description: what follows up to the first section, as written.
        sections: heading to items, each a name and its text in one line.
    """

    summary: str = ""
    description: str = ""
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def parse(text: str | None) -> Docstring:
    """The parts of a docstring; all empty for None."""
    lines = inspect.cleandoc(text or "").splitlines()
    body, sections = _split(lines)
    blank = next((i for i, line in enumerate(body) if not line.strip()), len(body))
    return Docstring(
        summary=re.sub(r" \[\d+\]", "", plain(" ".join(line.strip() for line in body[:blank]))),
        description="\n".join(body[blank:]).strip("\n"),
        sections={heading: _items(part) for heading, part in sections.items()},
    )


def meanings(target: Callable[..., Any]) -> dict[str, str]:
    """What each key means: by the Args and Attributes of a class, or else those of its bases.

    Returns:
        A text in one line for each documented key. Keys collected by ``**name`` are under that.
    """
    found: dict[str, str] = {}
    for owner in target.__mro__ if isinstance(target, type) else (target,):
        documents = [vars(owner).get("__doc__") if isinstance(owner, type) else owner.__doc__]
        if isinstance(owner, type) and "__init__" in vars(owner):
            documents.append(vars(owner)["__init__"].__doc__)
        for heading in ("Args", "Attributes"):
            for document in documents:
                for name, text in parse(document).sections.get(heading, {}).items():
                    found.setdefault(name, text)
    return found


def examples(description: str) -> list[str]:
    """The literal blocks of a description, each without its indentation."""
    return [block for is_code, block in blocks(description) if is_code]


def blocks(description: str) -> Iterator[tuple[bool, str]]:
    """Paragraphs of a description, and whether each is a literal block or a formula (indented).

    The marks that introduce such a block, ``::`` and ``.. math::``, are left out.
    """
    literal: list[str] = []
    for paragraph in re.split(r"\n(?:[ \t]*\n)+", description.strip("\n")):
        if paragraph[:1].isspace():
            literal.append(paragraph)
            continue
        if literal:
            yield True, _dedented(literal)
        literal = []
        text, directive, formula = paragraph.partition(".. math::")
        text = re.sub(r"\s*::$", "", text) if text.strip() == "::" else re.sub("::$", ":", text)
        if text.strip():
            yield False, text.strip("\n")
        if directive and formula.strip():
            literal.append(formula.strip("\n"))
    if literal:
        yield True, _dedented(literal)


def plain(text: str) -> str:
    """A text without the markup of reStructuredText: roles and double backticks."""
    return _ROLE.sub(r"\1", text).replace("``", "").replace("\\ ", "")


def plain_text(description: str) -> str:
    """A description without markup; code and formulas are indented by four spaces."""
    return "\n\n".join(
        textwrap.indent(block, "    ") if is_code else plain(block)
        for is_code, block in blocks(description)
    )


def source(summary: str) -> str:
    """The place of the thesis that a summary gives in brackets, such as 'thesis Table 5.8', or ''.

    A summary names it as in '(6.5.3)', '(Tables 3.6, 5.6)', '(eq. 3.1)' or '(thesis 4.4.4)'.
    """
    found = _SOURCE.search(summary)
    return f"thesis {found.group(1)}" if found else ""


def _split(lines: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Lines before the first section, and the lines of every section."""
    body: list[str] = []
    sections: dict[str, list[str]] = {}
    current = body
    for line in lines:
        heading = _HEADING.match(line)
        if heading:
            current = sections.setdefault(heading.group(1), [])
        else:
            if line and not line[0].isspace() and current is not body:
                current = sections.setdefault("", [])  # text that follows a section
            current.append(line)
    return body, sections


def _items(lines: list[str]) -> dict[str, str]:
    items: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc("\n".join(["", *lines])).splitlines():
        found = _ITEM.match(line)
        if found:
            names = found.group(1).split(", ")
            items |= dict.fromkeys(names, found.group(2))
        elif line.strip():
            items |= {name: f"{items[name]} {line.strip()}" for name in names}
    return {name: plain(text) for name, text in items.items()}


def _dedented(paragraphs: list[str]) -> str:
    return inspect.cleandoc("\n" + "\n\n".join(paragraphs))
