"""A page of the models that mixplug was tried with, from what ``mixplug doctor models`` wrote."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from command_reference import table, title, write
from docstrings import escaped

from mixplug.hosts.checking import Row, faults, takes_all

# Host to the module that lists one model of each of its families.
_HOSTS = {"timm": "mixplug.hosts.timm.families", "mmpretrain": "mixplug.hosts.mm.families"}
_INTRODUCTION = """\
One model of every family, with random weights, is tried with every mixer. A mixer **holds** where
the features of another image give the logits of that image, where shuffling the positions of one
image of a mixed pair changes the embedding (AlignMixup), and where every position of the last map
can be classified on its own (Dense MultiMix). What does not hold is refused before training, for
the reason in the table. *A* is the module whose output AlignMixup aligns, and *last* the one whose
positions Dense MultiMix classifies; it is empty where a mixer does not work.

``mixplug doctor models --host timm NAME`` does the same for any model of yours.
"""


def page(folder: Path) -> str:
    """The page, as reStructuredText.

    Args:
        folder: where the results are, a JSON file for each host.
    """
    lines = [*title("Models", "="), _INTRODUCTION]
    for host, home in _HOSTS.items():
        path = folder / f"{host}.json"
        if path.exists():
            families = importlib.import_module(home).FAMILIES
            lines += [*title(host, "-"), *_section(json.loads(path.read_text()), families)]
    return "\n".join(lines) + "\n"


def _section(found: dict[str, Any], families: tuple[str, ...]) -> list[str]:
    models = found["models"]
    clean = sum(map(takes_all, models.values()))
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    rows = [_row(name, models[name]) for name in sorted(models)]
    return [
        f"{clean} of {len(models)} take every mixer (``{found['command']}``, {found['date']}, "
        f"{versions}).",
        "",
        *_unchecked([name for name in families if name not in models]),
        *table(("Model", "A", "last", "Refused"), rows, "26 22 18 34"),
    ]


def _unchecked(names: list[str]) -> list[str]:
    listed = ", ".join(f"``{name}``" for name in names)
    return [f"With these versions the check has not been run for {listed}.", ""] if names else []


def _row(name: str, rows: list[Row]) -> tuple[str, ...]:
    where = {row["mixer"]: row["reason"] for row in rows if row["state"] == "ok"}
    places = [where.get(mixer, "") for mixer in ("AlignMixup", "DenseMultiMix")]
    refused = "; ".join(
        f"{', '.join(who)}: {escaped(why)}" for (_, why), who in faults(rows).items()
    )
    shown = name.removeprefix("../../")
    return (f"``{shown}``", *(f"``{place}``" if place else "" for place in places), refused)


def _build(app) -> None:
    folder = Path(app.srcdir) / "reference"
    write(folder / "models.rst", page(folder / "models"))


def setup(app) -> dict[str, bool]:
    """Write the page before Sphinx looks for it."""
    app.connect("builder-inited", _build)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
