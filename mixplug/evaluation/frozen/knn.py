"""k-NN classification of frozen features on ImageNet-style folders (6.5.3, Tables 6.5a, 6.6)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mixplug.data.image_folders import Crops, Labeled, loader
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.results import Tick, no_progress
from mixplug.functional.neighbors import knn_accuracy, knn_votes
from mixplug.retrieval import search

_QUERIES = 4096  # queries per block: each needs one vote count per class


def knn(
    frozen: Frozen,
    train: Labeled,
    val: Labeled,
    ks: Sequence[int] = (20,),
    temperature: float | None = 0.07,
    size: int | None = None,
    batch_size: int = 256,
    workers: int = 4,
    tick: Tick = no_progress,
) -> dict[str, Any]:
    """Classify each image of ``val`` by its nearest neighbors in ``train``.

    Features are the class tokens of the center crop after the last norm. They are compared by
    cosine similarity and held in memory, 4 D bytes per image.

    Args:
        frozen: the network.
        train: labeled images.
        val: images to classify.
        ks: numbers of neighbors; each gives one result.
        temperature: of the votes, see :func:`mixplug.functional.neighbors.knn_votes`.
        size: side of the crops in pixels; None is the size of the checkpoint's images. Crop and
            interpolation are those of the checkpoint.
        batch_size: images per batch.
        workers: processes that read images.
        tick: progress callback.

    Returns:
        ``knn@k`` in percent, and the settings.

    Raises:
        ValueError: no k, k < 1 or more neighbors than images; a temperature that is not > 0; an
            image that cannot be read.
    """
    ks = sorted(set(ks))
    if not ks or ks[0] < 1 or ks[-1] > len(train):
        raise ValueError(
            f"knn needs k in [1, {len(train):,}], the number of training images, got {list(ks)}."
        )
    if temperature is not None and not temperature > 0:
        raise ValueError(f"knn needs a temperature > 0 or None, got {temperature}.")
    total = len(train) + len(val)
    images = frozen.images.changed(size=size)
    crop = None if "crop" in images.guessed else images.crop
    cut = partial(Crops, size=images.size, crop=crop, interpolation=images.interpolation)
    known = features(frozen, cut(train), batch_size, workers, 0, total, tick)
    queries = features(frozen, cut(val), batch_size, workers, len(train), total, tick)
    s, ids = (found.cpu() for found in search(queries, known, ks[-1], metric="cosine"))
    neighbors = train.labels[ids]
    accuracy = {
        f"knn@{k}": 100 * _accuracy(s[:, :k], neighbors[:, :k], val, temperature) for k in ks
    }
    settings = {"temperature": temperature, "size": _side(images.size), "images": images.facts()}
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
    """Class tokens of all images of a split in order, (B, D) float32 on the network's device.

    Args:
        frozen: the network.
        crops: crops of the images.
        batch_size: images per batch.
        workers: processes that read images.
        done: number of images that are already done, for the progress.
        total: total number of images, for the progress.
        tick: progress callback.
    """
    found = []
    for images, _ in loader(crops, batch_size, workers):
        tick(done, total, "embedding")
        found.append(frozen.class_tokens(images).float())
        done += len(images)
    tick(done, total, "embedding")
    return torch.cat(found)


def _side(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _accuracy(s: Tensor, neighbors: Tensor, val: Labeled, temperature: float | None) -> float:
    """Accuracy, computed in blocks to save memory; the result does not depend on the blocks."""
    correct = 0.0
    for rows in torch.arange(len(val)).split(_QUERIES):
        votes = knn_votes(s[rows], neighbors[rows], len(val.classes), temperature)
        correct += knn_accuracy(votes, val.labels[rows]) * len(rows)
    return correct / len(val)
