"""Links between pages, and from pages to configs, lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reproduce import PAGES, written

ROOT = Path(__file__).parents[2]
FILES = ("README.md", "CONTRIBUTING.md", "mm_configs/README.md", "timm_hooks/README.md")
PAGES_WITH_LINKS = [*written(), *(ROOT / name for name in FILES)]


@pytest.mark.parametrize("page", PAGES_WITH_LINKS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            continue
        found = (page.parent / path).resolve()
        if not found.exists() or (anchor and anchor not in anchors(found)):
            lost.append(target)
    assert not lost


def anchors(page: Path) -> set[str]:
    """Of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_config_is_linked_or_named_by_a_rule() -> None:
    """From the page of its chapter; suffixes and targets that a page names in words count."""
    text = "\n".join(page.read_text() for page in PAGES)
    rules = ("_dino-", "_dora-", "/office_home/", "/linear/", "_digits.py", "/knn/", "_lars")
    configs = [p for p in (ROOT / "mm_configs").glob("[!_]*/*.py")]
    unlinked = [str(p) for p in configs if f"/{p.parent.name}/{p.name})" not in text]
    assert [path for path in unlinked if not any(rule in path for rule in rules)] == []
