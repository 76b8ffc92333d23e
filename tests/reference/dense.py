"""Dense MultiMix (eqs. 5.9 to 5.14) by loops over positions j, mixed examples k and examples i."""

from __future__ import annotations

import math

import torch
from reference.targets import cross_entropy
from torch import Tensor


def attention(z: Tensor, u: Tensor, normalize: str) -> list[float]:
    """Attention (eq. 5.9) of one example: z (D, r), u (D,)."""
    scores = []
    for j in range(z.shape[1]):
        scores.append(math.fsum(float(z[d, j]) * float(u[d]) for d in range(z.shape[0])))
    if normalize == "softmax":
        top = max(scores)
        exps = [math.exp(score - top) for score in scores]
        return [value / math.fsum(exps) for value in exps]
    positive = [max(score, 0.0) for score in scores]
    total = math.fsum(positive)
    return [value / total if total > 0 else 0.0 for value in positive]


def gap_query(z: Tensor) -> Tensor:
    """u = z 1 / r."""
    return torch.stack([sum(z[d]) / z.shape[1] for d in range(z.shape[0])])


def cam_query(weight: Tensor, y: Tensor) -> Tensor:
    """u = W y, where row k of ``weight`` (K, D) is the vector of class k."""
    return sum(float(y[k]) * weight[k] for k in range(len(y)))


def attention_maps(
    z: Tensor,
    query: str,
    normalize: str = "l1",
    weight: Tensor | None = None,
    y: Tensor | None = None,
) -> Tensor:
    """(B, r) for z (B, D, r); query 'none' is uniform."""
    maps = []
    for i in range(len(z)):
        if query == "none":
            maps.append([1 / z.shape[2]] * z.shape[2])
            continue
        u = gap_query(z[i]) if query == "gap" else cam_query(weight, y[i])
        maps.append(attention(z[i].detach(), u.detach(), normalize))
    return torch.tensor(maps, dtype=torch.float64)


def scaled_weights(weights: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """M̂ (M, B, r) and s (M, r) (eqs. 5.10 and 5.11); Λ and 0 where no example has attention."""
    m_hat = torch.zeros(weights.shape, dtype=torch.float64)
    s = torch.zeros(weights.shape[0], weights.shape[2], dtype=torch.float64)
    for k in range(weights.shape[0]):
        for j in range(weights.shape[2]):
            column = [float(a[i, j]) * float(weights[k, i, j]) for i in range(weights.shape[1])]
            s[k, j] = math.fsum(column)
            for i in range(weights.shape[1]):
                found = s[k, j] > 0
                m_hat[k, i, j] = column[i] / s[k, j] if found else weights[k, i, j]
    return m_hat, s


def dense_multimix(
    z: Tensor, y: Tensor, weights: Tensor, a: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixed features (M, D, r) and targets (M, K, r) (eqs. 5.12 and 5.13), and s (M, r)."""
    m_hat, s = scaled_weights(weights, a)
    features, targets = [], []
    for k in range(len(weights)):
        at_positions = range(weights.shape[2])
        batch = range(len(z))
        features.append(
            torch.stack(
                [sum(float(m_hat[k, i, j]) * z[i, :, j] for i in batch) for j in at_positions], 1
            )
        )
        targets.append(
            torch.stack([sum(float(m_hat[k, i, j]) * y[i] for i in batch) for j in at_positions], 1)
        )
    return torch.stack(features), torch.stack(targets), s


def dense_loss(logits: Tensor, target: Tensor, s: Tensor, reduction: str) -> Tensor:
    """Weighted cross-entropy (eq. 5.14) for logits and targets (M, K, r).

    'position_mean': weighted mean at each position, then the mean over positions; a position with
    s = 0 gives 0. 'global': one weighted mean over all terms.
    """
    rows, positions = range(logits.shape[0]), range(logits.shape[2])
    sums, masses = [], []
    for j in positions:
        terms = [s[k, j] * cross_entropy(logits[k, :, j], target[k, :, j]) for k in rows]
        sums.append(sum(terms))
        masses.append(math.fsum(float(s[k, j]) for k in rows))
    if reduction == "global":
        return sum(sums) / math.fsum(masses)
    means = [
        total / mass if mass > 0 else 0 * total for total, mass in zip(sums, masses, strict=True)
    ]
    return sum(means) / len(means)


def combine_targets(y: Tensor, weights: Tensor) -> Tensor:
    """Λ applied per position: (M, r, K) from y (B, K) and weights (M, B, r)."""
    rows = []
    for k in range(weights.shape[0]):
        for j in range(weights.shape[2]):
            rows.append(sum(float(weights[k, i, j]) * y[i] for i in range(len(y))))
    return torch.stack(rows).view(weights.shape[0], weights.shape[2], -1)
