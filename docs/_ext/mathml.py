"""Equations as MathML, made at build time: browsers draw it themselves, without scripts."""

from __future__ import annotations

import html
import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

_log = logging.getLogger(__name__)
# What the converter does not know; and bold letters, which browsers draw only as their own signs.
_WORDS = {r"\\arg\b": r"\\text{arg}\\,", r"\\operatorname\{(\w+)\}": r"\\text{\1}"}
_BOLD = {"A": 0x1D400, "a": 0x1D41A, "0": 0x1D7CE}


def _bold(found: re.Match[str]) -> str:
    letter = found[1]
    first = "0" if letter.isdecimal() else "A" if letter.isupper() else "a"
    return chr(_BOLD[first] + ord(letter) - ord(first))


def mathml(latex: str, display: str, place: nodes.Element) -> str:
    """The MathML of an equation; a warning, thus an error of ``make docs``, where there is none."""
    for known, instead in _WORDS.items():
        latex = re.sub(known, instead, latex)
    latex = re.sub(r"\\mathbf\{([A-Za-z0-9])\}", _bold, latex)
    try:
        text: str = convert(latex, display=display)
    except Exception as error:
        _log.warning("No MathML of %r: %r", latex, error, location=place)
        return html.escape(latex)
    if "\\" in text:
        _log.warning("MathML does not know a command in %r.", latex, location=place)
    return text


def inline(translator, node: nodes.math) -> None:
    """An equation within a line."""
    translator.body.append(mathml(node.astext(), "inline", node))
    raise nodes.SkipNode


def block(translator, node: nodes.math_block) -> None:
    """An equation that stands alone; a wide one scrolls by itself."""
    equation = mathml(node.astext(), "block", node)
    translator.body.append(f'<div class="equation" tabindex="0">{equation}</div>\n')
    raise nodes.SkipNode


def setup(app) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
