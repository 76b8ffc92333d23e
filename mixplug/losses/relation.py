"""Anchors, points, and which of them are positive and negative pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Relation:
    """Anchors, and the points that are their positives and negatives.

    Attributes:
        anchors: embeddings of the anchors, (A, D).
        anchor_labels: their classes, (A,).
        points: embeddings of the points, (P, D).
        point_labels: their classes, (P,).
        itself: whether anchor i is also point i. An anchor is never its own positive or negative.
    """

    anchors: Tensor
    anchor_labels: Tensor
    points: Tensor
    point_labels: Tensor
    itself: bool

    @classmethod
    def among(cls, examples: Tensor, labels: Tensor) -> Relation:
        """Relation in which all examples (B, D) are both anchors and points."""
        return cls(examples, labels, examples, labels, itself=True)

    def positive(self) -> Tensor:
        """Mask of the positives P(a), (A, P) bool."""
        same = self.anchor_labels[:, None] == self.point_labels
        return same.fill_diagonal_(False) if self.itself else same

    def negative(self) -> Tensor:
        """Mask of the negatives N(a), (A, P) bool."""
        return self.anchor_labels[:, None] != self.point_labels


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (A, P) of rows (A, D) and (P, D), in full precision also under autocast."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.mT
