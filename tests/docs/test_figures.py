"""The figures of the documentation are drawn by the scripts beside them, and are small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from reproduce import written

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SCRIPTS = {p.stem for p in (DOCS / "figures").glob("*.py")} - {"__main__", "common"}
IMAGES = sorted((DOCS / "images").glob("*.png"))
PAGES = [*written(), ROOT / "README.md"]


def test_every_figure_has_its_script() -> None:
    assert {p.stem for p in IMAGES} == SCRIPTS


@pytest.mark.parametrize("image", IMAGES, ids=lambda p: p.stem)
def test_a_figure_is_small_and_used(image: Path) -> None:
    assert image.stat().st_size < 200_000
    assert [p.name for p in PAGES if f"images/{image.name}" in p.read_text()]


def test_pictures_exist_and_are_described() -> None:
    for page in PAGES:
        for text, path in re.findall(r"!\[(.*?)\]\((\S+?)\)", page.read_text(), re.S):
            assert len(text.split()) >= 5, f"{page.name}: {path} needs a description"
            assert (page.parent / path).is_file(), f"{page.name}: there is no {path}"


def test_scripts_draw_them(tmp_path: Path) -> None:
    """All of them, with networks that hardly train, since two cores take minutes for the rest."""
    run = subprocess.run(
        [sys.executable, str(DOCS / "figures"), "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in IMAGES}


def test_an_unknown_figure_is_refused() -> None:
    run = subprocess.run(
        [sys.executable, str(DOCS / "figures"), "alignmi"], capture_output=True, text=True
    )
    assert run.returncode == 2 and "no figure alignmi. Known: alignmix," in run.stderr
