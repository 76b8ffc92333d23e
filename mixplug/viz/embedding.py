"""Figure 4.4: test classes in the embedding space, in two dimensions."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.optional import optional

METHODS = ("umap", "tsne")
# Okabe and Ito's colors, told apart without color vision too; cycles of 7 and 6 give 42 classes
# a sign of their own, and neighbors in the legend differ in both.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")


def flat_map(embeddings: Tensor, method: str | None = None, seed: int = 0) -> tuple[Tensor, str]:
    """Embeddings in two dimensions, by cosine distance; deterministic by seed.

    Args:
        embeddings: (B, D), B >= 4.
        method: 'umap' or 'tsne'; None is UMAP where umap-learn is installed, else t-SNE.
        seed: of the method.

    Returns:
        (B, 2), and the method's name. Only who is near whom has a meaning.

    Raises:
        ValueError: an unknown method, or fewer than four embeddings.
        ImportError: the method's package is not installed.
    """
    if method is None:
        method = METHODS[importlib.util.find_spec("umap") is None]
    if method not in METHODS:
        raise ValueError(f"A map needs method in {METHODS}, got {method!r}.")
    if len(embeddings) < 4:
        raise ValueError(f"A map needs at least four embeddings, got {len(embeddings)}.")
    rows = F.normalize(embeddings.detach().float().cpu(), dim=1).numpy()
    make, name = {"umap": (_umap, "UMAP"), "tsne": (_tsne, "t-SNE")}[method]
    with _one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread
        return torch.from_numpy(make(len(rows), seed).fit_transform(rows)), name


def _umap(count: int, seed: int) -> Any:
    umap = optional("umap", "umap", "UMAP")
    # of few points the default, spectral start is not defined
    start = "spectral" if count > 15 else "random"
    return umap.UMAP(n_neighbors=min(15, count - 1), metric="cosine", init=start, random_state=seed)


def _tsne(count: int, seed: int) -> Any:
    manifold = optional("sklearn.manifold", "demo", "t-SNE")
    perplexity = min(30.0, (count - 1) / 3)
    return manifold.TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed)


@contextlib.contextmanager
def _one_thread() -> Any:
    """On so little work OpenMP's threads wait for each other, most of all on a busy machine."""
    if importlib.util.find_spec("threadpoolctl") is None:
        yield
        return
    with optional("threadpoolctl", "demo", "t-SNE").threadpool_limits(1):
        yield


def figure(
    maps: Mapping[str, Tensor],
    labels: Tensor,
    names: Sequence[str],
    path: Path,
    title: str = "",
) -> None:
    """Draw and save maps side by side, with one legend for all.

    Args:
        maps: (B, 2) by what made the embeddings, the same examples in each.
        labels: (B,) classes.
        names: of the classes.
        path: of the PNG.
        title: above it.

    Raises:
        ValueError: no map.
    """
    if not maps:
        raise ValueError("There is no map to draw.")
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    across = min(3, len(maps))
    down = -(-len(maps) // across)
    classes = labels.unique().tolist()
    shown = [_short(str(names[label])) for label in classes]
    wide = 4.4 * across + 0.4
    columns = max(1, min(5, int(wide / (0.07 * max(map(len, shown)) + 0.5))))
    high = 4 * down + 0.21 * -(-len(classes) // columns) + 0.7
    fig = plt.figure(figsize=(wide, high), layout="constrained")
    for place, (name, points) in enumerate(maps.items(), 1):
        axes = fig.add_subplot(down, across, place)
        scatter(axes, points, labels, names)
        axes.set_title(name, fontsize=10, wrap=True)
    handles, _ = fig.axes[0].get_legend_handles_labels()
    fig.legend(
        handles, shown, ncols=columns, loc="outside lower center", frameon=False, fontsize=9,
        markerscale=1.6, handletextpad=0.2,
    )  # fmt: skip
    fig.suptitle(title, fontsize=11)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def _short(name: str) -> str:
    return name if len(name) <= 26 else name[:25] + "…"


def scatter(axes: Any, points: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """Draw one map: a color and a marker for every class."""
    size = min(26.0, max(4.0, 500 / math.sqrt(len(points))))
    for place, label in enumerate(labels.unique().tolist()):
        own = points[labels == label]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=size,
            color=COLORS[place % len(COLORS)],
            marker=MARKERS[place % len(MARKERS)],
            alpha=0.75,
            linewidths=0,
            label=names[label],
        )
    axes.set(xticks=[], yticks=[])
    axes.margins(0.04)


def choose_classes(labels: Tensor, count: int, order: Tensor) -> Tensor:
    """Which examples belong to the first classes in an order, (B,) bool.

    Args:
        labels: (B,) int64.
        count: how many classes.
        order: a permutation of as many numbers as there are classes.

    Raises:
        ValueError: there are fewer classes.
    """
    classes = labels.unique()
    if not 1 <= count <= len(classes):
        raise ValueError(
            f"{count} classes are wanted, but the test set has {len(classes)}: "
            f"use --classes {len(classes)} or less."
        )
    return torch.isin(labels, classes[order[:count]])
