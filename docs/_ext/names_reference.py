"""Pages of everything that a config can name, one for each group of ``mixplug list``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from command_reference import table, title, write
from docstrings import escaped, prepared

if TYPE_CHECKING:
    from mixplug.overview import Named

_EXPLAINED = {"mixer", "loss", "selfsup", "backbone", "neck"}  # kinds with pages in methods/


def pages() -> dict[str, str]:
    """File name and text of each page, as reStructuredText."""
    from mixplug import overview

    groups = groupby(overview.everything(), key=lambda one: one.kind)
    return {kind.replace(" ", "_") + ".rst": _page(kind, list(names)) for kind, names in groups}


def _page(kind: str, names: list[Named]) -> str:
    from mixplug.overview import title as heading

    lines = title(heading(kind), "=")
    if kind in _EXPLAINED:
        lines += [":doc:`/methods/index` explains when to use which.", ""]
    for one in names:
        twice = sum(other.name == one.name for other in names) > 1
        lines += _entry(one, f" in {'an mm config' if one.hosts == ('mm',) else 'Python'}" * twice)
    return "\n".join(lines)


def _entry(one: Named, where: str) -> list[str]:
    rows = [(_key(key.name), _default(key), escaped(key.meaning)) for key in one.keys]
    return [
        *title(one.name + where, "-"),
        *_described(one),
        *(table(("Key", "Default", "Meaning"), rows) if rows else []),
        ".. code-block:: python", "", *_indented(one.example.splitlines()), "",
        *_scores("Higher", one.higher_is_better), *_scores("Lower", one.lower_is_better),
        *_facts(one), "",
    ]  # fmt: skip


def _described(one: Named) -> list[str]:
    """Summary and description, as the docstring has them."""
    return [escaped(one.summary), "", *prepared(one.description.splitlines()), ""]


def _facts(one: Named) -> list[str]:
    facts = [
        ("Also", ", ".join(f"``{alias}``, ``mixplug.{alias}``" for alias in one.aliases)),
        ("For", ", ".join(one.hosts)),
        ("Source", escaped(one.reference)),
        ("Class", f"``{one.target.__module__}.{one.target.__qualname__}``"),
    ]
    return [f":{name}: {text}" for name, text in facts if text]


def _scores(word: str, names: tuple[str, ...]) -> list[str]:
    listed = ", ".join(f"``{name}``" for name in names)
    return [f"{word} is better: {listed}", ""] if names else []


def _key(name: str) -> str:
    return f"``{name}``"


def _default(key) -> str:
    if key.required:
        return "*required*"
    return f"``{key.default}``" if key.default is not None else ""


def _indented(lines: list[str]) -> list[str]:
    return [f"   {line}".rstrip() for line in lines]


def _build(app) -> None:
    folder, made = Path(app.srcdir) / "reference" / "names", pages()
    for name, text in made.items():
        write(folder / name, text)
    for old in folder.glob("*.rst"):
        if old.name not in made:
            old.unlink()


def setup(app) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", _build)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
