"""Every family of timm and mmpretrain, from what ``mixplug doctor models`` wrote.

The name of this file keeps it out of ``make test``; ``make test-models`` makes the results, which
takes an hour or two, and runs it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixplug.hosts.checking import takes_all

RESULTS = Path(__file__).parents[2] / "docs" / "reference" / "models"
CLEAN = {"timm": 90, "mmpretrain": 60}  # families in which every mixer has to work, at least


@pytest.mark.parametrize("host", CLEAN)
def test_mixers_work_or_are_refused_with_a_reason(host: str) -> None:
    models = json.loads((RESULTS / f"{host}.json").read_text())["models"]
    rows = [(name, row) for name, found in models.items() for row in found]
    assert not [(name, row) for name, row in rows if row["state"] == "broken"]
    assert all(row["reason"] for _, row in rows if row["state"] == "refused")
    clean = [name for name, found in models.items() if takes_all(found)]
    assert len(clean) >= CLEAN[host]


def test_the_results_are_of_every_family() -> None:
    from mixplug.hosts.mm.families import FAMILIES as MM
    from mixplug.hosts.timm.families import FAMILIES as TIMM

    for host, families in {"timm": TIMM, "mmpretrain": MM}.items():
        assert set(json.loads((RESULTS / f"{host}.json").read_text())["models"]) == set(families)
