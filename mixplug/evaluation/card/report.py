"""Write a card as JSON, as a Markdown table, and as one HTML page that contains its figures."""

from __future__ import annotations

import base64
import importlib.resources
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.evaluation.card.job import Card
from mixplug.evaluation.card.lines import Line, lines_of
from mixplug.evaluation.results import write_results
from mixplug.optional import optional

TITLE = "Reliability card"
_FEWEST = 5  # images of a bin that is drawn


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Attributes:
        path: PNG file.
        title: heading.
        text: caption, which is also the text for screen readers.
    """

    path: Path
    title: str
    text: str


def write_card(card: Card, out: Path, class_names: list[str]) -> list[Path]:
    """Write OUT/card.json, card.md, card.html and the figures.

    Returns:
        Paths of the files, figures last.

    Raises:
        ValueError: the folder is not writable.
        ImportError: matplotlib or jinja2 is not installed.
    """
    jinja = optional("jinja2", "card", "The page of a card")
    lines = lines_of(card)
    first = write_results(out, "card", card.as_json())
    figures = list(_figures(card, out, class_names))
    template = importlib.resources.files("mixplug.evaluation.card") / "page.html.jinja"
    environment = jinja.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(template.read_text(encoding="utf-8")).render(
        title=TITLE,
        card=card,
        tables=[_table(lines, main=True), _table(lines, main=False)],
        figures=[(figure, _data_url(figure.path)) for figure in figures],
        settings=json.dumps(card.facts["settings"], indent=2),
        networks=card.as_json()["networks"],
    )
    texts = {out / "card.md": markdown(card, lines), out / "card.html": html}
    try:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"The card cannot be written to {out}: {error}") from error
    return [first, *texts, *(figure.path for figure in figures)]


def markdown(card: Card, lines: list[Line]) -> str:
    """The table as Markdown; the best cell of a line is bold."""
    heads = [name.replace("|", "\\|") for name in card.names]
    rows = [f"# {TITLE}", ""]
    rows += [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for section, group in _sections(lines):
        rows.append(f"| **{section}** |{' |' * len(heads)}")
        for line in group:
            cells = zip(line.cells, line.best, strict=True)
            shown = [f"**{cell}**" if best else cell for cell, best in cells]
            rows.append(f"| {line.heading} | {' | '.join(shown)} |")
    notes = [f"- {text}" for text in card.facts["warnings"]]
    notes += [
        f"- {name}: no {part}: {why}"
        for name, parts in card.missing.items()
        for part, why in parts.items()
    ]
    data = [f"{name} {one['images']:,}" for name, one in card.facts["data"].items()]
    rows += ["", *notes, *([""] if notes else []), f"Images: {', '.join(data)}.", ""]
    return "\n".join(rows)


def _sections(lines: list[Line]) -> Any:
    return itertools.groupby(lines, key=lambda line: line.section)


def _table(lines: list[Line], main: bool) -> list[tuple[str, list[Line]]]:
    """Lines by section: those of the first table, or the others."""
    some = [line for line in lines if line.main == main]
    return [(name, list(group)) for name, group in _sections(some)]


def _data_url(path: Path) -> str:
    """A PNG as a URL that contains it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _figures(card: Card, out: Path, class_names: list[str]) -> Iterator[Figure]:
    """Draw the figures of the parts that the card has."""
    for make in (_reliability, _ood, _embedding, _attention):
        yield from make(card, out, class_names)


def _tested(card: Card) -> int:
    """Number of test images; the test set comes first."""
    return int(next(iter(card.facts["data"].values()))["images"])


def _having(card: Card, part: str) -> dict[str, dict[str, Tensor]]:
    """Sketches of a part, by network."""
    found = ((name, card.sketches[name].get(part)) for name in card.names)
    return {name: sketch for name, sketch in found if sketch}


def _reliability(card: Card, out: Path, class_names: list[str]) -> Iterator[Figure]:
    from mixplug.viz.reliability import figure

    bins = {}
    for name in card.names:
        found = card.results[name].get("calibration")
        if found:
            bins[name] = tuple(
                torch.tensor(found[key]) for key in ("share", "accuracy", "confidence")
            )
    if bins:
        path = out / "reliability.png"
        figure(bins, path, least=_FEWEST / _tested(card))
        yield Figure(
            path,
            "Reliability",
            f"Accuracy against confidence. On the diagonal both are equal; below it the network is "
            f"overconfident. Each point is the mean of at least {_FEWEST} images.",
        )


def _ood(card: Card, out: Path, class_names: list[str]) -> Iterator[Figure]:
    from mixplug.viz.ood import figure

    found = _having(card, "ood")
    if found:
        path = out / "ood.png"
        figure(found, path, "maximum of softmax")
        yield Figure(
            path,
            "Out-of-distribution",
            "Confidence on the test images and on out-of-distribution images: the less the "
            "histograms overlap, the better the network separates them.",
        )


def _embedding(card: Card, out: Path, class_names: list[str]) -> Iterator[Figure]:
    from mixplug.viz import embedding

    found = {
        name: sketch
        for name, sketch in _having(card, "representation").items()
        if len(sketch["labels"]) >= 4  # fewer points cannot be mapped
    }
    if found:
        path = out / "embedding.png"
        seed = card.facts["settings"]["seed"]
        maps, method = {}, ""
        for name, sketch in found.items():
            maps[name], method = embedding.flat_map(sketch["embeddings"], seed=seed)
        labels = next(iter(found.values()))["labels"]
        embedding.figure(maps, labels, class_names, path, f"{len(labels)} test images, {method}")
        yield Figure(
            path,
            "Embeddings",
            f"Test images of {len(labels.unique())} classes in two dimensions, by {method}. Only "
            f"neighborhoods are meaningful, not axes or distances.",
        )


def _attention(card: Card, out: Path, class_names: list[str]) -> Iterator[Figure]:
    from mixplug.viz.attention import figure

    found = _having(card, "attention")
    if found:
        path = out / "attention.png"
        images = next(iter(found.values()))["images"]
        shown = (255 * images).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        figure(shown, {name: one["maps"] for name, one in found.items()}, path)
        yield Figure(
            path,
            "Attention",
            "Attention of the last feature map by equation (5.9) of the thesis: average pooling, "
            "ReLU, ℓ1.",
        )
