"""Test classes in the embedding space, drawn in two dimensions (Figure 4.4)."""

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
# Okabe and Ito's colors can be distinguished without color vision. Cycles of 7 colors and 6 markers
# give 42 classes different signs, and neighbors in the legend differ in both.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")


def flat_map(embeddings: Tensor, method: str | None = None, seed: int = 0) -> tuple[Tensor, str]:
    """Map embeddings to two dimensions by cosine distance; deterministic for a seed.

    Args:
        embeddings: (B, D), B >= 4.
        method: 'umap' or 'tsne'; None uses UMAP if umap-learn is installed, otherwise t-SNE.
        seed: seed of the method.

    Returns:
        (B, 2), and the method's name. Only neighborhoods are meaningful, not distances.

    Raises:
        ValueError: an unknown method, or fewer than four embeddings.
        ImportError: the method's package is not installed.
    """
    if method is None:
        method = METHODS[importlib.util.find_spec("umap") is None]
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if len(embeddings) < 4:
        raise ValueError(f"A map needs at least four embeddings, got {len(embeddings)}.")
    rows = F.normalize(embeddings.detach().float().cpu(), dim=1).numpy()
    make, name = {"umap": (_umap, "UMAP"), "tsne": (_tsne, "t-SNE")}[method]
    with _one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warns that a seed implies one thread
        return torch.from_numpy(make(len(rows), seed).fit_transform(rows)), name


def _umap(count: int, seed: int) -> Any:
    umap = optional("umap", "umap", "UMAP")
    # the default spectral initialization is not defined for few points
    start = "spectral" if count > 15 else "random"
    return umap.UMAP(n_neighbors=min(15, count - 1), metric="cosine", init=start, random_state=seed)


def _tsne(count: int, seed: int) -> Any:
    manifold = optional("sklearn.manifold", "demo", "t-SNE")
    perplexity = min(30.0, (count - 1) / 3)
    return manifold.TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed)


@contextlib.contextmanager
def _one_thread() -> Any:
    """Use one thread: with so little work, OpenMP's threads would mostly wait for each other."""
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
        maps: (B, 2) for each model, with the same examples.
        labels: (B,) classes.
        names: names of the classes.
        path: path of the PNG.
        title: title of the figure.

    Raises:
        ValueError: no map.
    """
    if not maps:
        raise ValueError("There is no map to draw.")
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    across = min(3, len(maps))
    down = -(-len(maps) // across)
    classes = labels.unique().tolist()
    texts = [_shorten(str(names[label])) for label in classes]
    wide = 4.4 * across + 0.4
    columns = max(1, min(5, int(wide / (0.07 * max(map(len, texts)) + 0.5))))
    high = 4 * down + 0.21 * -(-len(classes) // columns) + 0.7
    fig = plt.figure(figsize=(wide, high), layout="constrained")
    for place, (name, points) in enumerate(maps.items(), 1):
        axes = fig.add_subplot(down, across, place)
        scatter(axes, points, labels, names)
        axes.set_title(name, fontsize=10, wrap=True)
    handles, _ = fig.axes[0].get_legend_handles_labels()
    fig.legend(
        handles, texts, ncols=columns, loc="outside lower center", frameon=False, fontsize=9,
        markerscale=1.6, handletextpad=0.2,
    )  # fmt: skip
    fig.suptitle(title, fontsize=11)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def _shorten(name: str) -> str:
    return name if len(name) <= 26 else name[:25] + "…"


def scatter(axes: Any, points: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """Draw one map, with a color and a marker for each class."""
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
    """Select the examples of the first classes in an order, (B,) bool.

    Args:
        labels: (B,) int64.
        count: number of classes to select.
        order: permutation of the class indices.

    Raises:
        ValueError: the labels have fewer classes.
    """
    classes = labels.unique()
    if not 1 <= count <= len(classes):
        raise ValueError(
            f"--classes must be in [1, {len(classes)}], the number of classes of the test set; "
            f"got {count}."
        )
    return torch.isin(labels, classes[order[:count]])
