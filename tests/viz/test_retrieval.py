"""The page of queries: frames, embedded images, and lossless small images."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor

from mixplug.viz import retrieval as viz


def image(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)


def rows() -> list[viz.Retrieved]:
    return [
        viz.Retrieved(
            image(8, 8), 'a"<b', [image(8, 6), image(8, 8)], [True, False], ['a"<b', "c"]
        ),
        viz.Retrieved(image(300, 700), "c", [image(90, 80)] * 2, [False, True], ['a"<b', "c"]),
    ]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.kinds: list[str] = []
        self.images: list[dict] = []
        self.captions: list[str] = []
        self.links: list[str] = []
        self.tags: dict[str, dict] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        self.tags.setdefault(tag, found)
        self.links += [found[key] for key in ("src", "href") if key in found]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "figure":
            self.kinds.append(found["class"])
            self.captions.append("")
        if tag == "img":
            self.images.append(found)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "figcaption":
            self.captions[-1] += data


def test_hits_and_misses_are_also_in_the_text() -> None:
    page = Page(viz.page(rows(), "title & more", "<note>"))
    assert not page.open  # every tag is closed, in order
    assert page.kinds == ["query", "hit", "miss", "query", "miss", "hit"]
    assert page.captions == ['a"<b', '✓ a"<b', "✗ c", "c", '✗ a"<b', "✓ c"]
    assert [found["alt"] for found in page.images] == [
        'Query 1: a"<b',
        'Neighbor 1 of query 1, a hit: a"<b',
        "Neighbor 2 of query 1, a miss: c",
        "Query 2: c",
        'Neighbor 1 of query 2, a miss: a"<b',
        "Neighbor 2 of query 2, a hit: c",
    ]
    assert page.tags["html"]["lang"] == "en"


def test_the_page_needs_no_other_files() -> None:
    given = rows()
    text = viz.page(given, "t")
    page = Page(text)
    assert len(page.links) == 6 and all(link.startswith("data:image/") for link in page.links)
    assert "url(" not in text and "@import" not in text and "<script" not in text
    assert 'name="viewport" content="width=device-width' in text
    pictures = [Image.open(io.BytesIO(base64.b64decode(link.split(",")[1]))) for link in page.links]
    small = [given[0].query, *given[0].neighbors]
    for picture, expected in zip(pictures, small, strict=False):  # small images are lossless
        assert torch.equal(torch.tensor(list(picture.getdata())).view(expected.shape), expected)
    assert pictures[3].format == "JPEG" and pictures[3].size == (320, 137)  # of 700 x 300
    assert pictures[4].size == (80, 90)  # never enlarged


def test_figure_frames_neighbors_and_not_the_query(tmp_path: Path, monkeypatch) -> None:
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    viz.figure(rows(), tmp_path / "x.png", "title")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    cells = [cell for cell in figures[0].axes if cell.images]
    framed = [cell.axison for cell in cells]
    assert framed == [False, True, True, False, True, True]
    for cell, hit in zip([c for c in cells if c.axison], [True, False, False, True], strict=True):
        spine = cell.spines["top"]
        assert to_hex(spine.get_edgecolor()) == (viz.HIT if hit else viz.MISS)
        assert (spine.get_linestyle() == "-") == hit
        assert cell.texts[-1].get_text() == ("✓" if hit else "✗")
    monkeypatch.undo()
    plt.close(figures[0])


def test_invalid_rows() -> None:
    with pytest.raises(ValueError, match=r"same number .* got 1, 2 and 1"):
        viz.Retrieved(image(8, 8), "a", [image(8, 8)], [True, False], ["a"])
    with pytest.raises(ValueError, match="no query to show"):
        viz.page([], "t")
