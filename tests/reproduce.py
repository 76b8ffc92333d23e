"""The pages of docs, and those of docs/reproduce, which quote the tables of the thesis."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted((DOCS / "reproduce").glob("*.md"))


def reproduced(*names: str) -> str:
    """The text of some pages, or of all; links to configs are relative to mm_configs."""
    chosen = [page for page in PAGES if not names or page.stem in names]
    return "\n".join(page.read_text() for page in chosen).replace("](../../mm_configs/", "](")


def written() -> list[Path]:
    """The pages of docs that somebody wrote, not those that Sphinx makes."""
    made = {"_build", "names"}
    return sorted(page for page in DOCS.rglob("*.md") if not made & {*page.parts})
