"""Queries and their retrieved neighbors, as a picture and as a web page (Figure 4.3)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from mixplug.optional import optional

# Frames can be distinguished without color: hits are solid with ✓, misses dashed with ✗.
HIT, MISS = "#00804d", "#d0202e"
_SMALL = 64  # pixels; images up to this size are shown with square pixels
_LARGEST = 320  # largest side on the web page in pixels


@dataclass(frozen=True)
class Retrieved:
    """A query and its neighbors, nearest first.

    Attributes:
        query: (H, W, 3) uint8, RGB.
        caption: caption of the query.
        neighbors: (H, W, 3) uint8 each, of any size.
        hits: for each neighbor, whether it has the query's class.
        captions: captions of the neighbors.
    """

    query: Tensor
    caption: str
    neighbors: Sequence[Tensor]
    hits: Sequence[bool]
    captions: Sequence[str]

    def __post_init__(self) -> None:
        if not len(self.neighbors) == len(self.hits) == len(self.captions) >= 1:
            raise ValueError(
                f"A query needs the same number (at least one) of neighbors, hits and captions, "
                f"got {len(self.neighbors)}, {len(self.hits)} and {len(self.captions)}."
            )


def figure(rows: Sequence[Retrieved], path: Path, title: str = "") -> None:
    """Draw and save a row for each query: the query, a gap, and its neighbors.

    Args:
        rows: queries.
        path: path of the PNG.
        title: title of the figure.

    Raises:
        ValueError: no query.
    """
    _check_rows(rows)
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    most = max(len(row.neighbors) for row in rows)
    fig, axes = plt.subplots(
        len(rows),
        most + 2,
        figsize=(1.5 * most + 2.1, 1.72 * len(rows) + 0.6),
        width_ratios=[1, 0.12, *[1] * most],
        squeeze=False,
        layout="constrained",
    )
    for cells, row in zip(axes, rows, strict=True):
        for cell in cells:
            cell.set_axis_off()
        _picture(cells[0], row.query, row.caption)
        found = zip(row.neighbors, row.hits, row.captions, strict=True)
        for cell, (image, hit, caption) in zip(cells[2:], found, strict=False):
            _picture(cell, image, caption)
            _frame(cell, hit)
    axes[0, 0].set_title("query", fontsize=10, fontweight="bold")
    for rank in range(most):
        axes[0, rank + 2].set_title(str(rank + 1), fontsize=10, fontweight="bold")
    fig.suptitle(title, fontsize=11)
    fig.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.1)
    plt.close(fig)


def _picture(cell: Any, image: Tensor, caption: str) -> None:
    small = max(image.shape[:2]) <= _SMALL
    cell.imshow(image.numpy(), interpolation="nearest" if small else "antialiased")
    # square cells align headings and captions for images of any shape
    cell.set(box_aspect=1, adjustable="datalim", facecolor="0.93")
    short = caption if len(caption) <= 20 else caption[:19] + "…"
    cell.text(0.5, -0.05, short, transform=cell.transAxes, ha="center", va="top", fontsize=8)


def _frame(cell: Any, hit: bool) -> None:
    cell.set_axis_on()
    cell.set(xticks=[], yticks=[])
    color = HIT if hit else MISS
    for spine in cell.spines.values():
        dashes = "-" if hit else (0, (2.2, 1.3))
        spine.set(color=color, linewidth=4, linestyle=dashes, capstyle="butt")
    mark = {"facecolor": color, "edgecolor": "none", "boxstyle": "square,pad=0.15"}
    cell.text(
        0.97, 0.97, "✓" if hit else "✗", transform=cell.transAxes, ha="right", va="top",
        color="white", fontsize=9, fontweight="bold", bbox=mark,
    )  # fmt: skip


def page(rows: Sequence[Retrieved], title: str, note: str = "") -> str:
    """A web page in one file: images are embedded, nothing is downloaded.

    Args:
        rows: queries.
        title: title of the page.
        note: line below the title.

    Raises:
        ValueError: no query.
    """
    _check_rows(rows)
    body = "\n".join(_section(number, row) for number, row in enumerate(rows, 1))
    return _PAGE.format(title=escape(title), note=escape(note), body=body, hit=HIT, miss=MISS)


def _section(number: int, row: Retrieved) -> str:
    query = _cell(row.query, row.caption, f"Query {number}: {row.caption}", "query")
    cells = [
        _cell(
            image,
            f"{'✓' if hit else '✗'} {caption}",
            f"Neighbor {rank} of query {number}, a {'hit' if hit else 'miss'}: {caption}",
            "hit" if hit else "miss",
        )
        for rank, (image, hit, caption) in enumerate(
            zip(row.neighbors, row.hits, row.captions, strict=True), 1
        )
    ]
    heading = f"<h2>Query {number}: {escape(row.caption)}</h2>"
    lines = ["<section>", heading, '<div class="row">', query, *cells, "</div>", "</section>"]
    return "\n".join(lines)


def _cell(image: Tensor, caption: str, alt: str, kind: str) -> str:
    return (
        f'<figure class="{kind}"><img src="{_data_uri(image)}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _data_uri(image: Tensor) -> str:
    """Encode small images losslessly, others as JPEG of at most 320 x 320 pixels."""
    pillow = optional("PIL.Image", "demo", "The page")
    picture, buffer = pillow.fromarray(image.contiguous().numpy()), io.BytesIO()
    small = max(picture.size) <= _SMALL
    if small:
        picture.save(buffer, "png")
    else:
        picture.thumbnail((_LARGEST, _LARGEST))
        picture.save(buffer, "jpeg", quality=88)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _check_rows(rows: Sequence[Retrieved]) -> None:
    if not rows:
        raise ValueError("There is no query to show.")


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --hit: {hit}; --miss: {miss}; }}
@media (prefers-color-scheme: dark) {{ :root {{ --hit: #35c48a; --miss: #ff7a80; }} }}
body {{ font: 16px/1.4 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.4rem; margin: 0 0 .3rem; }}
h2 {{ font-size: 1rem; margin: 1.6rem 0 .5rem; }}
.row {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(5.6rem, 1fr)); gap: .7rem; }}
figure {{ margin: 0; }}
img {{ display: block; width: 100%; aspect-ratio: 1; object-fit: contain; box-sizing: border-box;
  background: #8883; border: 4px solid transparent; image-rendering: auto; }}
img[src^="data:image/png"] {{ image-rendering: pixelated; }}
.query img {{ border-color: #888; border-style: dotted; }}
.hit img {{ border-color: var(--hit); }}
.miss img {{ border-color: var(--miss); border-style: dashed; }}
figcaption {{ font-size: .85rem; overflow-wrap: anywhere; margin-top: .2rem; }}
.query figcaption {{ font-weight: 600; }}
.hit figcaption {{ color: var(--hit); }}
.miss figcaption {{ color: var(--miss); }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{note}</p>
<p>Each row shows the query first, then its nearest neighbors in order.
<span style="color: var(--hit)">✓ solid frame: same class as the query.</span>
<span style="color: var(--miss)">✗ dashed frame: another class.</span></p>
{body}
</body>
</html>
"""
