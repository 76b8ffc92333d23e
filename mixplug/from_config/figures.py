"""Figures of the model and the data of an mm config (Figures 4.2 to 4.4): ``mixplug viz``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.from_config.embeddings import Embedded, embeddings_of
from mixplug.losses.pair import MultiSimilarity
from mixplug.metrics.positivity import Positivity
from mixplug.names import distinct
from mixplug.retrieval.search import search
from mixplug.viz import embedding, positivity, retrieval

Tick = Callable[[int, int], None]
_CLASSES = 10  # of a map by default; colors of more classes are hard to distinguish


def draw_retrieval(
    config: Path, checkpoint: Path, queries: int, top: int, seed: int, out: Path, tick: Tick
) -> tuple[list[Path], str]:
    """Draw random queries and their nearest neighbors (Figure 4.3), as PNG and HTML.

    Neighbors come from the gallery if the test set has one, else from all queries.

    Returns:
        The files, and a line that describes them.

    Raises:
        ValueError: fewer examples than requested; see :func:`embeddings_of`.
    """
    found = embeddings_of(config, checkpoint, "test", tick=tick)
    asked, gallery = found.of("query"), found.of("gallery")
    if not 1 <= queries <= len(asked):
        raise ValueError(f"Cannot draw {queries} queries: the test set has {len(asked)}.")
    drawn = asked[sampling.permutation(len(asked), _source(seed))[:queries].sort().values]
    items = gallery if len(gallery) else asked
    # without a gallery each query is an item, too; its index follows from the sorted queries
    own = None if len(gallery) else torch.searchsorted(asked, drawn)
    if top > len(items) - (own is not None):
        raise ValueError(f"Cannot draw {top} neighbors: there are only {len(items)} items.")
    _, ids = search(
        found.embeddings[drawn], found.embeddings[items], top, exclude=own, metric="cosine"
    )
    rows = [
        _retrieved(found, query, near)
        for query, near in zip(drawn.tolist(), items[ids].tolist(), strict=True)
    ]
    hits = sum(sum(row.hits) for row in rows)
    summary = f"{hits} of {queries * top} neighbors have the class of their query."
    title = f"{queries} queries and their top {top}: {Path(checkpoint).name}"
    files = [out / "retrieval.png", out / "retrieval.html"]
    retrieval.figure(rows, files[0], f"{title}\n{summary}")
    files[1].write_text(retrieval.page(rows, title, summary), encoding="utf-8")
    return files, summary


def _retrieved(found: Embedded, query: int, near: Sequence[int]) -> retrieval.Retrieved:
    def name(index: int) -> str:
        return str(found.class_names[int(found.labels[index])])

    return retrieval.Retrieved(
        found.image(query),
        name(query),
        [found.image(i) for i in near],
        [bool(found.labels[i] == found.labels[query]) for i in near],
        [name(i) for i in near],
    )


def draw_embedding(
    config: Path,
    checkpoints: Sequence[Path],
    classes: int | None,
    seed: int,
    out: Path,
    tick: Tick,
) -> tuple[list[Path], str]:
    """Draw embeddings of random test classes in two dimensions, per checkpoint (Figure 4.4).

    ``classes`` is the number of classes; None takes ten, or all if there are fewer.

    Returns:
        The files, and a line that describes them.

    Raises:
        ValueError: fewer classes than requested; see :func:`embeddings_of`.
    """
    maps: dict[str, Tensor] = {}
    labels, names, method = torch.empty(0), (), ""
    for name, checkpoint in zip(distinct(checkpoints), checkpoints, strict=True):
        found = embeddings_of(config, checkpoint, "test", tick=tick)
        test = found.of("query", "gallery")
        known = found.labels[test]
        order = sampling.permutation(len(known.unique()), _source(seed))
        classes = classes or min(_CLASSES, len(order))
        some = embedding.choose_classes(known, classes, order)
        maps[name], method = embedding.flat_map(found.embeddings[test][some], seed=seed)
        labels, names = known[some], found.class_names
    summary = f"{len(labels)} test examples of {classes} classes, by {method}."
    path = out / f"embedding_{classes}.png"
    embedding.figure(maps, labels, [str(name) for name in names], path, summary)
    return [path], summary


def draw_positivity(
    config: Path, checkpoint: Path | None, seed: int, out: Path, tick: Tick
) -> tuple[list[Path], str]:
    """Draw Pr(Pos(a, v)) over an epoch of training batches (Figure 4.2), and save it as JSON.

    β, γ and m are those of the multi-similarity loss of the config, or the defaults if it has none.

    Returns:
        The files, and a line that describes them.

    Raises:
        ValueError: no batch has a positive pair; see :func:`embeddings_of`.
    """
    found = embeddings_of(config, checkpoint, "train", in_order=False, seed=seed, tick=tick)
    loss = _multi_similarity(found.model)
    counted = Positivity(loss=loss)
    parts = zip(
        found.embeddings.split(list(found.sizes)),
        found.labels.split(list(found.sizes)),
        strict=True,
    )
    for embeddings, labels in parts:
        counted.update(embeddings, labels)
    lam = torch.tensor(counted.grid)
    measured, theory = counted.compute()
    furthest = int((measured - theory).abs().argmax())
    summary = (
        f"{counted.pairs:,} mixed pairs at {'epoch 0' if checkpoint is None else checkpoint.name}, "
        f"β={loss.beta:g}, γ={loss.gamma:g}, m={loss.margin:g}"
    )
    files = [out / "positivity.png", out / "positivity.json"]
    positivity.figure(lam, measured, theory, files[0], summary)
    numbers = {"lambda": counted.grid, "measured": measured.tolist(), "by_4_14": theory.tolist()}
    files[1].write_text(json.dumps(numbers, indent=2) + "\n")
    gap = f"{float(measured[furthest]):.3f} measured, {float(theory[furthest]):.3f} by (4.14)"
    return files, f"{summary}. They differ most at λ = {counted.grid[furthest]:g}: {gap}."


def _multi_similarity(model: Any) -> MultiSimilarity:
    inside = (m for m in model.modules() if isinstance(m, MultiSimilarity))
    return next(inside, MultiSimilarity())


def _source(seed: int) -> torch.Generator:
    return sampling.generators(seed, 0).local
