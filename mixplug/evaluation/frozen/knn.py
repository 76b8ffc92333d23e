"""k-nearest neighbors of frozen features on ImageNet-style folders (6.5.3, Tables 6.5a, 6.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mixplug.data.image_folders import Crops, Labeled, loader
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.results import Tick, unseen
from mixplug.functional.neighbors import knn_accuracy, knn_votes
from mixplug.retrieval import search

_QUERIES = 4096  # whose votes are counted at once: one number per class each


def knn(
    frozen: Frozen,
    train: Labeled,
    val: Labeled,
    ks: Sequence[int] = (20,),
    temperature: float | None = 0.07,
    size: int = 224,
    batch_size: int = 256,
    workers: int = 4,
    tick: Tick = unseen,
) -> dict[str, Any]:
    """Classify each image of ``val`` by its neighbors in ``train``.

    Features are class tokens after the last norm, of the center crop, compared by cosine; they are
    kept in memory, 4 D bytes for an image.

    Args:
        frozen: the network.
        train: images with labels.
        val: images to be classified.
        ks: numbers of neighbors, one result each.
        temperature: of their votes, see :func:`mixplug.functional.neighbors.knn_votes`.
        size: side of the crops in pixels; the shorter side is resized to 256 / 224 of it.
        batch_size: images that are seen at once.
        workers: processes that read images.
        tick: called after every batch.

    Returns:
        ``knn@k`` in percent, and the settings.

    Raises:
        ValueError: no k, k < 1 or more neighbors than images; a temperature that is not > 0; an
            image that cannot be read.
    """
    ks = sorted(set(ks))
    if not ks or ks[0] < 1 or ks[-1] > len(train):
        raise ValueError(
            f"knn needs k in [1, {len(train):,}], the images of train, got {list(ks)}."
        )
    if temperature is not None and not temperature > 0:
        raise ValueError(f"knn needs a temperature > 0 or None, got {temperature}.")
    total = len(train) + len(val)
    known = features(frozen, Crops(train, size), batch_size, workers, 0, total, tick)
    queries = features(frozen, Crops(val, size), batch_size, workers, len(train), total, tick)
    s, ids = (found.cpu() for found in search(queries, known, ks[-1], metric="cosine"))
    neighbors = train.labels[ids]
    accuracy = {
        f"knn@{k}": 100 * _accuracy(s[:, :k], neighbors[:, :k], val, temperature) for k in ks
    }
    settings = {"temperature": temperature, "size": size}
    counts = {"classes": len(train.classes), "train_images": len(train), "val_images": len(val)}
    return {**accuracy, **settings, **counts}


def features(
    frozen: Frozen,
    crops: Crops,
    batch_size: int,
    workers: int,
    done: int,
    total: int,
    tick: Tick,
) -> Tensor:
    """Class tokens of all images of a split in its order, (B, D) float32 on the network's device.

    Args:
        frozen: the network.
        crops: of the images.
        batch_size: that are seen at once.
        workers: processes that read them.
        done: images that came before, for the progress.
        total: images that there are.
        tick: called after every batch.
    """
    found = []
    for images, _ in loader(crops, batch_size, workers):
        tick(done, total, "embedding")
        found.append(frozen.class_tokens(images).float())
        done += len(images)
    tick(done, total, "embedding")
    return torch.cat(found)


def _accuracy(s: Tensor, neighbors: Tensor, val: Labeled, temperature: float | None) -> float:
    """In blocks, which differ from all at once in nothing."""
    right = 0.0
    for rows in torch.arange(len(val)).split(_QUERIES):
        votes = knn_votes(s[rows], neighbors[rows], len(val.classes), temperature)
        right += knn_accuracy(votes, val.labels[rows]) * len(rows)
    return right / len(val)
