"""Embeddings that mixup adds to a training set, to measure its utilization (4.4.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug import sampling
from mixplug.functional.aligned import mix


def mixed_embeddings(
    embeddings: Tensor, labels: Tensor, epochs: int = 1, alpha: float = 2.0, seed: int = 0
) -> Tensor:
    """Every embedding mixed with one of another class, once per epoch.

    With λ ~ Beta(α, α) as in training (4.4.2), λ weighing the embedding itself; ℓ2-normalized
    before and after, as Metrix does. It is embeddings that are mixed, whatever the level that was
    trained with: only they are left at this point.

    Args:
        embeddings: X, (N, D), of the training set.
        labels: (N,) classes, two at least.
        epochs: how often.
        alpha: α > 0.
        seed: the same seed gives the same mixtures.

    Returns:
        (epochs · N, D), without X itself.

    Raises:
        ValueError: epochs < 1, α <= 0, or one class only.
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
