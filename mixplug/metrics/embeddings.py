"""Numbers of the embeddings of a test set: alignment, uniformity, intrusion distance and others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug import sampling
from mixplug.numbers import compute

PART = "representation"
BATCH = 128  # examples that are mixed with each other (thesis 3.4.2)
_PURPOSE = 1  # separates the draw of pairs from other draws of a seed


def embedding_numbers(embeddings: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    """The numbers of the card's part 'representation', see :mod:`mixplug.numbers`.

    Embeddings are scaled to length 1. For numbers of mixtures, such as the intrusion distance,
    embeddings are mixed in pairs within batches of 128, with λ uniform on [0, 1]; their mean over
    batches measures how empty the space between two classes is.

    Args:
        embeddings: (N, D).
        labels: (N,) class indices.
        seed: batches, pairs and λ are drawn with it.

    Returns:
        Values by name. Those of mixtures are missing if no batch has three classes.

    Raises:
        ValueError: see :func:`mixplug.functional.alignment` and
            :func:`mixplug.functional.uniformity`.
    """
    embeddings = F.normalize(embeddings, dim=1)
    found = compute(PART, "embeddings", embeddings, labels)
    found |= compute(PART, "unlabeled", embeddings)
    of_batches = [
        compute(PART, "mixtures", *batch) for batch in _mixtures(embeddings, labels, seed)
    ]
    for name in of_batches[0] if of_batches else ():
        found[name] = sum(values[name] for values in of_batches) / len(of_batches)
    return found


def _mixtures(
    embeddings: Tensor, labels: Tensor, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Mixed embeddings, their weights, clean embeddings and labels, batch by batch."""
    order = sampling.permutation(len(labels), sampling.generators(seed, _PURPOSE, rank=-3).local)
    batches = order.split(BATCH)
    full = batches[: max(1, len(order) // BATCH)]  # distances are larger in a smaller batch
    for number, batch in enumerate(full):
        if len(labels[batch].unique()) > 2:  # else no class is left that is not in the mixture
            clean = embeddings[batch]
            source = sampling.generators(seed, number).local
            pair = sampling.permutation(len(clean), source)
            lam = sampling.beta(1.0, len(clean), source)[:, None]
            eye = torch.eye(len(clean))
            weights = lam * eye + (1 - lam) * eye[pair]
            yield weights @ clean, weights, clean, labels[batch]
