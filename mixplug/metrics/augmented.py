"""Mixed embeddings of a training set, for measuring its utilization (4.4.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug import sampling
from mixplug.functional.aligned import mix


def mixed_embeddings(
    embeddings: Tensor, labels: Tensor, epochs: int = 1, alpha: float = 2.0, seed: int = 0
) -> Tensor:
    """Mix every embedding with an embedding of another class, once per epoch.

    λ ~ Beta(α, α) as in training (4.4.2); it weighs the embedding itself. Embeddings are
    ℓ2-normalized before and after mixing, as in Metrix. They are mixed even if training mixes at
    another level, since images and features are not available here.

    Args:
        embeddings: X, (N, D), of the training set.
        labels: (N,) classes, at least two different ones.
        epochs: number of mixtures of each embedding.
        alpha: α > 0.
        seed: determines partners and λ.

    Returns:
        (epochs · N, D), without X itself.

    Raises:
        ValueError: epochs < 1, α <= 0, or only one class.
    """
    if epochs < 1 or not alpha > 0:
        raise ValueError(
            f"mixed_embeddings needs epochs >= 1 and alpha > 0, got {epochs}, {alpha}."
        )
    normal, parts = F.normalize(embeddings, dim=1), []
    for epoch in range(epochs):
        source = sampling.generators(seed, epoch).local
        partner = sampling.other_class(labels.cpu(), source).to(embeddings.device)
        lam = sampling.beta(alpha, len(normal), source).to(normal)
        parts.append(F.normalize(mix(normal, normal[partner], lam), dim=1))
    return torch.cat(parts)
