"""Classification by neighbours, with which self-supervised features are judged."""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype


def knn_votes(
    similarities: Tensor, neighbor_labels: Tensor, classes: int, temperature: float | None = 0.07
) -> Tensor:
    r"""Votes of the k nearest neighbours, :math:`\sum_i [y_i = c]\, e^{s_i / \tau}`, as in [0].

    They are divided by the largest of a query's weights, which changes no order and overflows
    nowhere.

    Args:
        similarities: s of the neighbours, cosine as a rule, (Q, k).
        neighbor_labels: y, (Q, k) int64 in [0, K).
        classes: K.
        temperature: τ > 0; None gives each neighbour one vote.

    Returns:
        (Q, K).

    Raises:
        ValueError: shapes do not fit, a class outside [0, K), or a temperature that is not > 0.

    - [0]: Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018,
      https://arxiv.org/abs/1805.01978
    """
    if similarities.dim() != 2 or similarities.shape != neighbor_labels.shape:
        raise ValueError(
            f"knn_votes needs similarities and neighbor_labels (Q, k), got "
            f"{tuple(similarities.shape)} and {tuple(neighbor_labels.shape)}."
        )
    if (
        neighbor_labels.numel()
        and not 0 <= int(neighbor_labels.min()) <= int(neighbor_labels.max()) < classes
    ):
        raise ValueError(
            f"knn_votes needs classes in [0, {classes}), got {int(neighbor_labels.min())} to "
            f"{int(neighbor_labels.max())}."
        )
    if temperature is not None and not temperature > 0:
        raise ValueError(f"knn_votes needs a temperature > 0 or None, got {temperature}.")
    s = similarities.to(exact_dtype(similarities))
    if temperature is None:
        weight = torch.ones_like(s)
    else:
        weight = ((s - s.amax(1, keepdim=True)) / temperature).exp()
    return s.new_zeros(len(s), classes).scatter_add_(1, neighbor_labels, weight)


def knn_accuracy(votes: Tensor, labels: Tensor) -> float:
    """Share of queries whose class has the most votes; of classes that tie, the lowest counts.

    Args:
        votes: (Q, K).
        labels: (Q,) int64.

    Raises:
        ValueError: shapes do not fit, or no query.
    """
    if votes.dim() != 2 or labels.shape != votes.shape[:1] or not len(labels):
        raise ValueError(
            f"knn_accuracy needs votes (Q, K) and labels (Q,) with Q >= 1, got "
            f"{tuple(votes.shape)} and {tuple(labels.shape)}."
        )
    first = (votes == votes.amax(1, keepdim=True)).to(torch.int8).argmax(1)
    return float((first == labels).double().mean())
