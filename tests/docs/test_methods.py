"""Every method has a page that agrees with the code: keys, defaults, a figure, a source."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from mixplug import catalog

PAGES = sorted(
    p for p in (Path(__file__).parents[2] / "docs" / "methods").glob("*.md") if p.stem != "index"
)
KINDS = ("mixer", "loss", "selfsup", "backbone", "neck")
OWN = [e for kind in KINDS for e in catalog.entries(kind) if e.target.__module__[:8] == "mixplug."]
TABLE = r"Keys of `(\w+)`\n\n\| key \| default \| meaning \|\n\|---\|---\|---\|\n((?:\|.*\n)+)"


def tables() -> dict[str, tuple[str, dict[str, tuple[str, str]]]]:
    """Of every method the page that explains it, and its keys with defaults and meanings."""
    found = {}
    for page in PAGES:
        for name, rows in re.findall(TABLE, page.read_text()):
            assert name not in found, f"{name} has two tables, one of them in {page.name}."
            cells = [re.split(r" \| ", row.strip("| ")) for row in rows.splitlines()]
            keys = {key.strip("`"): (default, meaning) for key, default, meaning in cells}
            assert len(keys) == len(cells), f"{page.name} has a key of {name} twice."
            found[name] = page.name, keys
    return found


def shown(cell: str) -> object:
    """What the cell of a default says: 'required', a class by its name, or a value."""
    if cell == "required":
        return catalog.REQUIRED
    written = cell.strip("`")
    return written if re.fullmatch(r"(?!None|True|False)[A-Z]\w+", written) else eval(written, {})


def test_every_method_is_on_a_page() -> None:
    missing = {e.name for e in OWN} - {*tables()}
    assert not missing, f"docs/methods has no table 'Keys of `NAME`' of {sorted(missing)}"


@pytest.mark.parametrize("entry", OWN, ids=lambda e: e.name)
def test_keys_and_defaults_agree_with_the_code(entry: catalog.Entry) -> None:
    assert entry.name in tables(), f"docs/methods has no table 'Keys of `{entry.name}`'."
    page, keys = tables()[entry.name]
    defaults = catalog.find(entry.name).defaults
    assert {*keys} == {*defaults}, f"{page}, {entry.name}: { ({*keys} ^ {*defaults}) } differ"
    for key, (default, meaning) in keys.items():
        known = defaults[key]
        known = (
            known.__name__ if inspect.isclass(known) and known is not catalog.REQUIRED else known
        )
        assert shown(default) == known, f"{page}: {entry.name}.{key} is {default}, not {known!r}"
        assert type(shown(default)) is type(known), f"{page}: {entry.name}.{key} is {default}"
        assert meaning, f"{page}: {entry.name}.{key} has no meaning"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_says_what_it_must(page: Path) -> None:
    """CONTRIBUTING.md has this list."""
    text = page.read_text()
    needed = {
        "a title and then a sentence": r"^# .+\n\n\S",
        "an equation": r"(?s)\$\$.+\$\$",
        "its reference": "Reference",
        "how it is used": "Use it|Use them|In an mm config",
        "its cost": "Cost|cost",
        "when not to use it ('Do not use')": "[Dd]o not use|Use .* to compare",
        "a figure of docs/images": r"\]\(\.\./images/",
    }
    missing = [what for what, pattern in needed.items() if not re.search(pattern, text)]
    assert not missing, f"docs/methods/{page.name} lacks {', '.join(missing)}"
